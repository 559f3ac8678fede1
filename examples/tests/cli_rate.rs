//! `selma rate`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;

use common::Selma;
use selma_dataset::{DatasetWriter, Provenance};
use selma_eval::rating::{Answer, AnswerFile, AnswerFormat, Choice, Key, RatingResult};

/// Datasets of six pictures each, of two models.
fn datasets(selma: &Selma) {
    for (model, red) in [("base", 20), ("tuned", 220)] {
        let mut writer = DatasetWriter::open(selma.path(model)).unwrap();
        for number in 0..6_u8 {
            let picture = image::RgbImage::from_pixel(16, 16, image::Rgb([red, number, 0]));
            let provenance = Provenance {
                skill: if number < 3 { "colour" } else { "shape" }.to_owned(),
                ..Provenance::default()
            };
            let text = format!("picture {number} </script>");
            writer
                .push(&format!("p{number}.png"), &picture, &text, provenance)
                .unwrap();
        }
        writer.finish().unwrap();
    }
}

/// Somebody who prefers the tuned model, and leaves the last pair open.
fn answer(selma: &Selma, rater: &str) {
    let key = Key::load(&selma.path("rate.key.json")).unwrap();
    let pairs = key.pairs.iter().enumerate().take(5);
    let answers = pairs.map(|(pair, shown)| Answer {
        pair,
        choice: if shown.left == "tuned" {
            Choice::Left
        } else {
            Choice::Right
        },
    });
    let file = AnswerFile {
        format: AnswerFormat::V1,
        study: key.study.clone(),
        rater: rater.to_owned(),
        name: String::new(),
        saved: 1,
        answers: answers.collect(),
    };
    let name = format!("answers-{rater}.json");
    selma.write(&name, serde_json::to_string(&file).unwrap());
}

#[test]
fn pictures_go_out_and_win_rates_come_in() {
    let selma = Selma::new();
    datasets(&selma);
    selma
        .run("rate export base tuned --out rate.html --seed 3")
        .ok();
    let page = String::from_utf8(selma.read("rate.html")).unwrap();
    assert!(page.contains("picture 5 \\u003c/script") && !page.contains("tuned"));
    answer(&selma, "a");
    answer(&selma, "b");
    let import = "rate import answers-a.json rate.key.json answers-b.json";
    let ended = selma.run(import).ok();
    for part in [
        "10 answers to 5 pairs of 5 prompts, 2 left open; raters: 2",
        "base over tuned",
        "colour",
        "p (Holm)",
        "alpha 1.00",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let ended = selma
        .run(&format!("{import} --format json --interval bca"))
        .ok();
    let result: RatingResult = serde_json::from_str(ended.text()).unwrap();
    assert_eq!(result.comparisons[0].overall.losses, 10);
    // What was printed goes into a report.
    selma.write("people.json", ended.text());
    let scores = "{\"file_name\":\"p1.png\",\"scorer\":\"clip\",\"score\":1}\n";
    selma.write("tuned.jsonl", scores);
    let report = "report --eval tuned.jsonl --ratings people.json --out report";
    selma.run(report).ok();
    let text = String::from_utf8(selma.read("report/report.md")).unwrap();
    assert!(
        text.contains("### people") && text.contains("| people.json |"),
        "{text}"
    );
    selma
        .run(&report.replace("people.json", "rate.key.json"))
        .failed(&["rate.key.json", "selma rate import --format json"]);

    // The same again, and some prompts by their list.
    let key = selma.read("rate.key.json");
    selma
        .run("rate export base tuned --out rate.html --seed 3")
        .ok();
    assert_eq!(
        (selma.read("rate.html"), selma.read("rate.key.json")),
        (page.into_bytes(), key)
    );
    selma.write(
        "some.jsonl",
        "{\"id\":\"p1\",\"text\":\"one\"}\n{\"id\":\"p2\",\"text\":\"two\"}\n",
    );
    selma
        .run("rate export old=base new=tuned --prompts some.jsonl --count 1 --out few.html --key few.json")
        .ok();
    let few = Key::load(&selma.path("few.json")).unwrap();
    let columns = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language";
    selma.write(
        "dsg.csv",
        format!("{columns}\np4,four,k,1,0,entity,whole,t,Is it?\n"),
    );
    selma
        .run("rate export base tuned --prompts dsg.csv --out dsg.html")
        .ok();
    let dsg = Key::load(&selma.path("dsg.key.json")).unwrap();
    assert_eq!(
        (dsg.pairs[0].item.as_str(), dsg.pairs[0].text.as_str()),
        ("p4", "four")
    );
    assert_eq!(
        (few.models, few.pairs.len()),
        (vec!["old".to_owned(), "new".to_owned()], 1)
    );
}

#[test]
fn wrong_folders_and_files_are_named() {
    let selma = Selma::new();
    datasets(&selma);
    selma
        .run("rate export base --out rate.html")
        .misused(&["2 values"]);
    selma
        .run("rate export base none --out rate.html")
        .failed(&["none"]);
    selma
        .run("rate export base base --out rate.html")
        .failed(&["models", "base twice"]);
    selma
        .run("rate export base tuned --out rate.html --key rate.html")
        .failed(&["two outputs", "rate.html"]);
    selma
        .run("rate export base tuned --out no/rate.html")
        .failed(&["no"]);
    fs::remove_file(selma.path("tuned/p4.png")).unwrap();
    selma
        .run("rate export base tuned --out rate.html")
        .failed(&["p4.png"]);
    // Nothing is left of what failed.
    assert_eq!(selma.names(), ["base", "tuned"]);
    selma.write("torn.json", "{\"format\":\"selma-rating-key/1\",");
    selma
        .run("rate import torn.json")
        .failed(&["torn.json", "EOF"]);
}
