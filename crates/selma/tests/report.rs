//! The report in all its forms, from data that is complete, hostile or missing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers outside of #[test] functions count as library code for clippy"
)]

use std::{collections::BTreeMap, fs, io::Cursor};

use image::{ImageFormat, Rgb, RgbImage};
use selma::report::{
    Answer, FunnelRow, GuidanceCurve, ModelKind, ModelRow, Preference, Report, SampleImage,
    SampleRow,
};
use selma_eval::{Estimate, Paired};

const HOSTILE: &str =
    "<script>alert(1)</script> \"quoted\" & 'single' </title><img src=x onerror=alert(2)>";

fn estimate(mean: f64) -> Estimate {
    Estimate {
        mean,
        low: mean - 0.02,
        high: mean + 0.03,
        n: 1500,
        clusters: 300,
    }
}

fn by(scores: &[(&str, f64)]) -> BTreeMap<String, Estimate> {
    let scores = scores.iter();
    scores
        .map(|(name, mean)| ((*name).to_owned(), estimate(*mean)))
        .collect()
}

fn model(name: &str, kind: ModelKind, overall: f64, entity: f64, relation: f64) -> ModelRow {
    ModelRow {
        name: name.to_owned(),
        kind,
        guidance: 2.5,
        overall: estimate(overall),
        by_skill: by(&[("short", overall), ("tags", entity)]),
        by_category: by(&[("entity", entity), ("relation", relation)]),
        difference_to_base: (kind != ModelKind::Base).then_some(Paired {
            difference: overall - 0.7,
            low: overall - 0.72,
            high: overall - 0.67,
            p: 0.0123,
            n: 1500,
            clusters: 300,
        }),
        preferences: Vec::new(),
    }
}

/// What a scorer says of a model's pictures.
fn preference(scorer: &str, mean: f64, model: &ModelRow) -> Preference {
    Preference {
        scorer: scorer.to_owned(),
        mean: estimate(mean),
        difference_to_base: model.difference_to_base,
    }
}

fn png(grey: u8) -> Vec<u8> {
    let image = RgbImage::from_fn(64, 64, |x, y| Rgb([grey, (x * 4) as u8, (y * 4) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn picture(model: &str, score: f64) -> SampleImage {
    SampleImage {
        model: model.to_owned(),
        png: png(100),
        score,
        answers: vec![Answer {
            question: "Is there a star?".to_owned(),
            answer: Some("yes".to_owned()),
            ok: true,
        }],
    }
}

fn report() -> Report {
    Report {
        title: "A run".to_owned(),
        summary: "What was done.".to_owned(),
        models: vec![
            model("base", ModelKind::Base, 0.7, 0.9, 0.5),
            model("expert short", ModelKind::Expert, 0.65, 0.92, 0.45),
            model("merged", ModelKind::Merged, 0.76, 0.88, 0.55),
        ],
        samples: vec![SampleRow {
            id: "short-1".to_owned(),
            skill: "short".to_owned(),
            prompt: "a red star".to_owned(),
            images: vec![picture("merged", 1.0), picture("base", 0.5)],
        }],
        funnel: vec![FunnelRow {
            skill: "short".to_owned(),
            requests: 40,
            parsed: 1200,
            kept: 800,
            images: 800,
        }],
        curves: vec![
            GuidanceCurve {
                model: "base".to_owned(),
                points: vec![(4.0, estimate(0.7)), (1.0, estimate(0.6))],
                chosen: Some(4.0),
            },
            GuidanceCurve {
                model: "merged".to_owned(),
                points: vec![(1.0, estimate(0.72)), (2.5, estimate(0.76))],
                chosen: Some(2.5),
            },
        ],
        settings: vec![("seed".to_owned(), "42".to_owned())],
        notes: vec!["A note.".to_owned()],
        ..Report::default()
    }
}

/// A report whose every text is hostile.
fn hostile() -> Report {
    let mut report = report();
    let text = || HOSTILE.to_owned();
    report.title = text();
    report.summary = text();
    for model in &mut report.models {
        model.by_skill = by(&[(HOSTILE, 0.5)]);
        model.by_category = by(&[(HOSTILE, 0.5)]);
        model.name.push_str(HOSTILE);
        model.preferences = vec![preference(HOSTILE, 20.8, model)];
    }
    for curve in &mut report.curves {
        curve.model = text();
    }
    for sample in &mut report.samples {
        (sample.id, sample.skill, sample.prompt) = (text(), text(), text());
        for image in &mut sample.images {
            image.model = text();
            image.answers = vec![Answer {
                question: text(),
                answer: Some("</script><!--".to_owned()),
                ok: false,
            }];
        }
    }
    report.funnel[0].skill = text();
    report.settings = vec![(text(), text())];
    report.notes = vec![text()];
    report
}

/// The values of an attribute in all of a page.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!(" {name}=\"");
    let parts = html.split(&start).skip(1);
    parts.map(|rest| rest.split('"').next().unwrap()).collect()
}

#[test]
fn hostile_text_stays_text() {
    let html = hostile().html();
    // The page's own: its data and its script.
    assert_eq!(html.matches("<script").count(), 2);
    assert_eq!(html.matches("</script").count(), 2);
    assert_eq!(
        html.matches("<title").count(),
        html.matches("</title").count()
    );
    assert!(!html.contains("<img src=x"), "an image from a prompt");
    assert!(html.contains(
        "&lt;script&gt;alert(1)&lt;/script&gt; &quot;quoted&quot; &amp; &#39;single&#39;"
    ));
    assert_eq!(attributes(&html, "onerror").len(), 0);
    // Whatever is in an attribute has not ended it: it is there in full.
    let skills = attributes(&html, "data-skill");
    assert!(
        skills
            .iter()
            .all(|skill| skill.ends_with("onerror=alert(2)&gt;")),
        "{skills:?}"
    );
    assert!(!hostile().markdown().contains("<script"));
}

#[test]
fn the_data_of_the_window_reads_back() {
    let html = hostile().html();
    let data = html.split("id=\"data\">").nth(1).unwrap();
    let data = data.split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["models"], serde_json::json!([HOSTILE]));
    let sample = &data["samples"][0];
    assert_eq!(sample["questions"], serde_json::json!([HOSTILE]));
    let answer = serde_json::json!([[0, "</script><!--", false]]);
    assert_eq!(sample["answers"], serde_json::json!([answer, answer]));
}

#[test]
fn the_page_asks_nothing_of_the_network() {
    let html = report().html();
    assert!(html.contains("default-src 'none'; img-src data:;"));
    for forbidden in ["http://", "https://", "url(", "@import", "<link", "src=\"/"] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(
        attributes(&html, "src")
            .iter()
            .all(|uri| uri.starts_with("data:image/"))
    );
}

#[test]
fn the_best_of_every_column_is_marked_and_no_other() {
    let table = report().table();
    let starred = |line: &str| -> Vec<String> {
        let cells = line.split_whitespace().filter(|cell| cell.starts_with('*'));
        cells.map(str::to_owned).collect()
    };
    let lines: Vec<&str> = table.lines().collect();
    let of = |name: &str| -> Vec<Vec<String>> {
        let lines = lines.iter().filter(|line| line.starts_with(name));
        lines.map(|line| starred(line)).collect()
    };
    assert_eq!(of("base"), [vec![], Vec::<String>::new()], "{table}");
    assert_eq!(of("expert short"), [["*92.0"], ["*92.0"]], "{table}");
    assert_eq!(
        of("merged"),
        [vec!["*76.0", "*55.0"], vec!["*76.0"]],
        "{table}"
    );
    assert_eq!(
        report()
            .html()
            .matches("title=\"best of its column\"")
            .count(),
        5
    );
    assert_eq!(report().markdown().matches("**").count(), 10);
}

#[test]
fn equals_are_all_best_and_one_alone_is_not() {
    let mut report = report();
    report.models[0].overall = report.models[2].overall;
    assert_eq!(
        report.table().matches("*76.0").count(),
        3,
        "{}",
        report.table()
    );
    report.models.truncate(1);
    assert!(!report.table().contains("*7"), "{}", report.table());
    report.models[0].overall.mean = f64::NAN;
    assert!(!report.table().contains("*-"));
}

#[test]
fn preferences_stand_in_a_table_of_their_own() {
    let without = report();
    let mut with = report();
    for model in &mut with.models {
        model.preferences = vec![preference("pickscore", 20.8, model)];
    }
    for (text, bare, part) in [
        (
            with.table(),
            without.table(),
            "20.8000 (20.7800 to 20.8300)",
        ),
        (with.markdown(), without.markdown(), "## Preferences"),
        (with.html(), without.html(), "id=\"preferences\""),
        (
            with.csv(),
            without.csv(),
            "base,base,2.5,preference,pickscore,20.8,",
        ),
        (
            with.csv(),
            without.csv(),
            "preference difference,pickscore,",
        ),
    ] {
        assert!(text.contains(part), "{part}: {text}");
        assert!(!bare.contains(part), "{part}");
    }
    // The base has no difference to itself, and without scorers nothing is said of them.
    assert_eq!(with.csv().matches("preference difference").count(), 2);
    assert!(with.table().starts_with(&without.table()));
}

#[test]
fn the_terminal_gets_an_aligned_table() {
    let expected = "\
model         guidance     overall     vs base      entity    relation
----------------------------------------------------------------------
base               2.5        70.0                    90.0        50.0
                        68.0..73.0              88.0..93.0  48.0..53.0
expert short       2.5        65.0        -5.0       *92.0        45.0
                        63.0..68.0  -7.0..-2.0  90.0..95.0  43.0..48.0
merged             2.5       *76.0        +6.0        88.0       *55.0
                        74.0..79.0  +4.0..+9.0  86.0..91.0  53.0..58.0

by skill           short        tags
------------------------------------
base                70.0        90.0
              68.0..73.0  88.0..93.0
expert short        65.0       *92.0
              63.0..68.0  90.0..95.0
merged             *76.0        88.0
              74.0..79.0  86.0..91.0

Faithfulness in percent; below each figure its 95% interval over prompts. * best of its column.
";
    assert_eq!(report().table(), expected);
}

#[test]
fn a_model_cannot_steer_the_terminal() {
    let mut report = report();
    report.models[1].name = "\u{1b}[2Jexpert\nbase".to_owned();
    let table = report.table();
    assert!(
        !table.contains('\u{1b}') && table.contains("[2Jexpert base"),
        "{table}"
    );
}

#[test]
fn the_headline_says_no_more_than_the_interval() {
    let sentence = |low: f64, high: f64| {
        let mut report = report();
        let difference = report.models[2].difference_to_base.as_mut().unwrap();
        (difference.low, difference.high) = (low, high);
        report.markdown()
    };
    assert!(sentence(0.01, 0.09).contains("the merged model is more faithful"));
    assert!(sentence(-0.01, 0.09).contains("no difference is shown"));
    assert!(sentence(0.0, 0.09).contains("no difference is shown"));
    assert!(sentence(-0.09, -0.01).contains("the merged model is less faithful"));
}

#[test]
fn parts_without_data_are_left_out() {
    let html = Report::default().html();
    assert!(!html.contains("<section"), "{html}");
    assert!(html.contains("</html>"));
    assert_eq!(Report::default().csv().lines().count(), 1);
    assert_eq!(Report::default().table(), "No model has been measured.\n");
    for (id, empty) in [
        ("scores", (|r| r.models.clear()) as fn(&mut Report)),
        ("guidance", |r| r.curves.clear()),
        ("pictures", |r| r.samples.clear()),
        ("data", |r| r.funnel.clear()),
        ("notes", |r| r.notes.clear()),
        ("settings", |r| r.settings.clear()),
    ] {
        let section = format!("<section id=\"{id}\"");
        let mut report = report();
        assert!(report.html().contains(&section), "{id}");
        empty(&mut report);
        assert!(!report.html().contains(&section), "{id}");
        assert!(report.html().contains("<section"), "{id}");
    }
}

#[test]
fn numbers_of_the_charts_are_numbers() {
    let mut odd = report();
    odd.models[0].overall.mean = f64::NAN;
    odd.models[1].overall.high = f64::INFINITY;
    odd.models[2].guidance = f64::NAN;
    odd.models[2].by_category = by(&[("entity", 1.0), ("only here", 0.0)]);
    odd.curves[0].points.push((f64::NAN, estimate(0.5)));
    odd.curves[0].points.push((2.0, estimate(f64::NAN)));
    odd.curves[1].points.clear();
    odd.samples[0].images[0].score = f64::NAN;
    odd.funnel[0].parsed = 0;
    for report in [report(), odd] {
        let html = report.html();
        assert!(html.contains("<svg"), "no chart");
        for word in ["NaN", "\"inf", "-inf", "inf%"] {
            assert!(!html.contains(word), "{word}");
        }
        for name in ["x1", "x2", "y1", "y2", "x", "y", "data-score"] {
            for value in attributes(&html, name) {
                let number: f64 = value.trim_end_matches('%').parse().expect(value);
                assert!(number.is_finite(), "{name} {value}");
            }
        }
        for points in attributes(&html, "points") {
            for number in points.split([' ', ',']).filter(|number| !number.is_empty()) {
                assert!(number.parse::<f64>().unwrap().is_finite(), "{points}");
            }
        }
        assert!(!report.csv().contains("NaN") && !report.csv().contains("inf"));
    }
}

#[test]
fn a_page_of_pictures_keeps_its_order_and_its_gaps() {
    let mut report = report();
    report.samples[0].images.push(picture("unlisted", 0.25));
    report.samples[0].images[1].png = b"\x89PNG torn".to_vec();
    let html = report.html();
    // By the order of the table, then what is in no table; the expert drew nothing and has no column.
    assert!(html.contains("\"models\":[\"base\",\"merged\",\"unlisted\"]"));
    assert!(html.contains("not readable<span class=\"hidden\">: base, score 50.0%"));
    assert_eq!(
        attributes(&html, "alt")
            .iter()
            .filter(|alt| !alt.is_empty())
            .count(),
        2
    );
    assert!(html.contains("alt=\"merged, score 100.0%\""));
    let mut other = report.samples[0].clone();
    other.images = vec![picture("merged", 0.5)];
    report.samples.push(other);
    assert_eq!(report.html().matches("no picture").count(), 2);
}

#[test]
fn csv_has_a_row_for_each_number_and_quotes_its_text() {
    let mut report = report();
    report.models[1].name = "expert \"short\", large".to_owned();
    let csv = report.csv();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(
        lines[0],
        "model,kind,guidance,group,name,mean,low,high,p,n,prompts"
    );
    assert_eq!(
        lines[1],
        "base,base,2.5,overall,,0.7,0.6799999999999999,0.73,,1500,300"
    );
    assert!(
        csv.contains("\"expert \"\"short\"\", large\",expert,2.5,category,entity,0.92,"),
        "{csv}"
    );
    assert!(csv.contains("merged,merged,2.5,difference,,"));
    assert!(csv.contains("merged,merged,1,guidance,,0.72,"));
    // Overall, two categories, two skills for three models, two differences, four points of curves.
    assert_eq!(lines.len(), 1 + 3 * 5 + 2 + 4);
    assert!(
        lines[1..]
            .iter()
            .all(|line| line.replace("\", ", "").split(',').count() == 11)
    );
}

#[test]
fn the_same_data_give_the_same_bytes() {
    assert_eq!(report().html(), report().html());
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("runs/report");
    let report = report();
    report.write(&folder).unwrap();
    report.write(&folder).unwrap();
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["index.html", "report.csv", "report.md"]);
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    assert_eq!(read("index.html"), report.html());
    assert_eq!(read("report.md"), report.markdown());
    assert_eq!(read("report.csv"), report.csv());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    fs::write(&file, b"not a folder").unwrap();
    let error = report().write(&file).unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
}

/// 300 prompts, nine models, noisy pictures that hardly compress.
#[test]
fn a_large_page_stays_below_25_megabytes() {
    let mut state = 1u32;
    let mut noise = || {
        let image = RgbImage::from_fn(64, 64, |x, y| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (state >> 27) as u8;
            Rgb([(x * 3) as u8 + grain, (y * 3) as u8 + grain, 90 + grain])
        });
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    };
    let pictures: Vec<Vec<u8>> = (0..9).map(|_| noise()).collect();
    let answers: Vec<Answer> = (0..8)
        .map(|number| Answer {
            question: format!("Is object number {number} to the left of the large red square?"),
            answer: Some("yes".to_owned()),
            ok: true,
        })
        .collect();
    let images: Vec<SampleImage> = pictures
        .iter()
        .enumerate()
        .map(|(number, png)| SampleImage {
            model: format!("model {number}"),
            png: png.clone(),
            score: 0.5,
            answers: answers.clone(),
        })
        .collect();
    let samples = (0..300).map(|number| SampleRow {
        id: format!("{number}"),
        skill: "paragraph".to_owned(),
        prompt: "a long prompt ".repeat(40),
        images: images.clone(),
    });
    let report = Report {
        samples: samples.collect(),
        ..report()
    };
    let bytes: usize = pictures.iter().map(|png| png.len() * 300).sum();
    assert!(
        bytes * 4 / 3 > 25_000_000,
        "the pictures are too easy: {bytes}"
    );
    let size = report.html().len();
    assert!(size < 25_000_000, "{size}");
}
