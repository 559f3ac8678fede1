//! `selma eval dsg`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::Selma;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma_eval::{EvalResult, QuestionSet};
use selma_mini::{EvalSet, Partition, layout, render};

/// Pictures of the prompts, drawn by the renderer, and their questions.
fn world(folder: &Path) -> EvalSet {
    let set = EvalSet::draw(Partition::Validation, 2, 3).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    fs::create_dir(folder.join("pictures")).unwrap();
    for item in set.items() {
        let picture = render(&layout(&item.spec, &mut rng).unwrap());
        picture
            .save(folder.join(format!("pictures/{}.png", item.id)))
            .unwrap();
    }
    QuestionSet::new(set.questions())
        .unwrap()
        .write(&folder.join("questions.csv"))
        .unwrap();
    set
}

const ASK: &str =
    "eval dsg --images pictures --annotations questions.csv --vqa oracle --out result.json";

#[test]
fn rendered_pictures_are_faithful_and_wrong_ones_are_not() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let ended = selma.run(ASK).ok();
    let right = EvalResult::load(&selma.path("result.json")).unwrap();
    assert_eq!(right.items.len(), set.items().len());
    assert!(right.overall.mean > 0.9, "{}", right.overall.mean);
    for part in ["all", "source: coco", "category: entity", "95% interval"] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let ids: Vec<&str> = set.items().iter().map(|item| item.id.as_str()).collect();
    let blank = image::RgbImage::from_pixel(64, 64, image::Rgb([255, 255, 255]));
    blank
        .save(selma.path(&format!("pictures/{}.png", ids[0])))
        .unwrap();
    selma.run(&format!("{ASK} --aggregation selma")).ok();
    let worse = EvalResult::load(&selma.path("result.json")).unwrap();
    assert!(worse.overall.mean < right.overall.mean);
    assert_ne!(worse.aggregation, right.aggregation);
}

#[test]
fn given_answers_are_scored_without_pictures() {
    let selma = Selma::new();
    selma.write(
        "q.csv",
        "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language\n\
         a_1,a red cat,,1,0,entity,whole,entity - whole (cat),Is there a cat?\n\
         a_1,a red cat,,2,1,attribute,color,\"attribute - color (cat, red)\",Is the cat red?\n",
    );
    selma.write(
        "a.csv",
        "t2i_model,item_id,question_id,answer\nsd,a_1,1,yes\nsd,a_1,2,no\nother,a_1,1,no\n",
    );
    let score = "eval dsg --annotations q.csv --answers a.csv";
    let ended = selma.run(&format!("{score} --t2i-model sd")).ok();
    assert!(ended.text().contains("50.00"), "{}", ended.text());
    selma.run(score).failed(&["a.csv"]);
    selma
        .run(&format!("{score} --t2i-model xl"))
        .failed(&["a.csv", "xl", "sd"]);
    selma
        .run("eval dsg --annotations q.csv --answers no.csv")
        .failed(&["no.csv", "No such file"]);
    selma
        .run(&format!("{score} --images p --vqa oracle"))
        .misused(&["--answers"]);
}

#[test]
fn what_cannot_be_evaluated_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let set = world(selma.folder.path());
    let first = format!("pictures/{}.png", set.items()[0].id);
    let whole = selma.read(&first);
    fs::remove_file(selma.path(&first)).unwrap();
    selma.run(ASK).failed(&[&first, "has no image"]);
    fs::write(selma.path(&first), &whole[..whole.len() / 2]).unwrap();
    selma.run(ASK).failed(&[&first, "cannot be read"]);
    image::RgbImage::new(32, 32)
        .save(selma.path(&first))
        .unwrap();
    selma.run(ASK).failed(&["64", "32"]);
    fs::write(selma.path(&first), whole).unwrap();
    let csv = String::from_utf8(selma.read("questions.csv")).unwrap();
    selma.write("questions.csv", csv.replacen("proposition_id", "number", 1));
    selma.run(ASK).failed(&["questions.csv", "proposition_id"]);
    selma.write("questions.csv", csv);
    selma
        .run(&ASK.replace("result.json", "no/result.json"))
        .failed(&["cannot write no/result.json"]);
    selma
        .run(&ASK.replace("--images pictures", "--images no"))
        .failed(&["no is not a folder"]);
    assert_eq!(selma.names(), ["pictures", "questions.csv"]);
    selma
        .run("eval dsg --annotations questions.csv")
        .misused(&["--images"]);
    selma
        .run("eval dsg --annotations questions.csv --images pictures")
        .misused(&["--vqa"]);
    selma.run("eval").misused(&["dsg"]);
}
