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
    Answer, FunnelRow, GuidanceCurve, HumanRating, MergeRow, MergedLayer, Metric, MetricRow,
    ModelKind, ModelRow, Report, SampleImage, SampleRow, SelectionRow, TrainingCurve, TrainingStep,
    Unit,
};
use selma_eval::rating::{
    Agreement, CategoryPreference, Comparison, Preference, Ranking, RaterCount, RatingResult,
    Strength,
};
use selma_eval::{Bootstrap, Estimate, Paired};

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
            category: "whole".to_owned(),
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
            rejected: vec![("too_long".to_owned(), 20), ("similar".to_owned(), 380)],
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

fn metric_row(model: &ModelRow, overall: f64, values: [f64; 3]) -> MetricRow {
    let ids = ["short-1", "short-2", "short-3"].map(str::to_owned);
    MetricRow {
        model: model.name.clone(),
        kind: model.kind,
        overall: estimate(overall),
        difference_to_base: model.difference_to_base,
        by_category: by(&[("short", overall)]),
        values: ids.into_iter().zip(values).collect(),
    }
}

/// A study of three models, of which two were compared.
fn rating() -> HumanRating {
    let preference = Preference {
        wins: 120,
        ties: 30,
        losses: 50,
        rate: estimate(0.675),
        decided: Some(estimate(0.706)),
        p: 0.0004,
    };
    let category = CategoryPreference {
        preference: Preference {
            decided: None,
            rate: estimate(0.5),
            ..preference
        },
        p_holm: 0.0123,
    };
    let strength = |model: &str, strength: f64| Strength {
        model: model.to_owned(),
        strength,
        low: strength - 0.1,
        high: strength + 0.1,
        answers: 200,
    };
    HumanRating {
        path: "ratings/march.json".into(),
        name: "march".to_owned(),
        result: RatingResult {
            bootstrap: Bootstrap::default(),
            studies: vec!["0123".to_owned()],
            models: vec!["merged".to_owned(), "base".to_owned()],
            raters: vec![RaterCount {
                rater: "r1".to_owned(),
                name: "Ada".to_owned(),
                answers: 200,
                unanswered: 3,
            }],
            superseded: Vec::new(),
            prompts: 100,
            pairs: 100,
            answers: 200,
            unanswered: 3,
            left: Some(estimate(0.51)),
            comparisons: vec![Comparison {
                first: "merged".to_owned(),
                second: "base".to_owned(),
                overall: preference,
                by_category: [("colour".to_owned(), category)].into(),
            }],
            agreement: Some(Agreement {
                alpha: 0.61,
                low: 0.5,
                high: 0.7,
                agreement: 0.8,
                pairs: 90,
                answers: 180,
            }),
            ranking: Some(Ranking {
                models: vec![strength("merged", 0.42), strength("base", -0.42)],
                undefined_resamples: 0,
            }),
        },
    }
}

/// A report with all that a run leaves, a second metric, and what people said.
fn full() -> Report {
    let report = report();
    let row = |factor: f64| {
        let rows = report.models.iter();
        rows.map(move |model| {
            let overall = model.overall.mean * factor;
            metric_row(model, overall, [0.5 * factor, 0.75 * factor, factor])
        })
    };
    let metrics = vec![
        Metric {
            name: "DSG".to_owned(),
            detail: "judge".to_owned(),
            unit: Unit::Share,
            rows: row(1.0).collect(),
        },
        Metric {
            name: "pickscore".to_owned(),
            detail: String::new(),
            unit: Unit::Plain,
            rows: row(30.0).collect(),
        },
    ];
    let step = |step: usize| TrainingStep {
        step,
        loss: 0.2 / step as f64,
        accuracy: Some(0.5),
    };
    Report {
        metrics,
        ratings: vec![rating()],
        selected: vec![SelectionRow {
            training: "short-filtered".to_owned(),
            skill: "short".to_owned(),
            drawn: 800,
            passed: 500,
            used: 400,
        }],
        training: vec![TrainingCurve {
            name: "expert short".to_owned(),
            objective: "denoising".to_owned(),
            detail: "300 steps of 32".to_owned(),
            steps: (1..=300).map(step).collect(),
        }],
        merges: vec![MergeRow {
            name: "mean".to_owned(),
            method: "mean".to_owned(),
            inputs: vec![("short".to_owned(), 1.0), ("tags".to_owned(), 0.5)],
            norm: 0.36,
            truncation_error: 0.0,
            self_check: 1.1e-7,
            layers: vec![MergedLayer {
                module: "unet.to_q".to_owned(),
                rank: 64,
                norm: 0.25,
            }],
        }],
        hashes: vec![("model".to_owned(), "ab1b".to_owned())],
        ..report
    }
}

/// A report whose every text is hostile.
fn hostile() -> Report {
    let mut report = full();
    let text = || HOSTILE.to_owned();
    report.title = text();
    report.summary = text();
    for model in &mut report.models {
        model.by_skill = by(&[(HOSTILE, 0.5)]);
        model.by_category = by(&[(HOSTILE, 0.5)]);
        model.name.push_str(HOSTILE);
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
                category: text(),
                answer: Some("</script><!--".to_owned()),
                ok: false,
            }];
        }
    }
    report.funnel[0].skill = text();
    report.funnel[0].rejected[0].0 = text();
    for metric in &mut report.metrics {
        (metric.name, metric.detail) = (text(), text());
        for row in &mut metric.rows {
            row.model.push_str(HOSTILE);
            row.by_category = by(&[(HOSTILE, 0.5)]);
        }
    }
    (report.selected[0].training, report.selected[0].skill) = (text(), text());
    report.ratings[0].name = text();
    let result = &mut report.ratings[0].result;
    for comparison in &mut result.comparisons {
        let category = comparison.by_category["colour"];
        comparison.by_category = [(text(), category)].into();
        (comparison.first, comparison.second) = (text(), text());
    }
    result.ranking.as_mut().unwrap().models[0].model = text();
    let training = &mut report.training[0];
    (training.name, training.objective, training.detail) = (text(), text(), text());
    let merge = &mut report.merges[0];
    (merge.name, merge.method) = (text(), text());
    (merge.inputs[0].0, merge.layers[0].module) = (text(), text());
    report.hashes = vec![(text(), text())];
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
    let data = html.split("id=\"answers\">").nth(1).unwrap();
    let data = data.split("</script>").next().unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["models"], serde_json::json!([HOSTILE]));
    let sample = &data["samples"][0];
    assert_eq!(sample["questions"], serde_json::json!([HOSTILE]));
    assert_eq!(sample["categories"], serde_json::json!([HOSTILE]));
    let answer = serde_json::json!([[0, "</script><!--", false]]);
    assert_eq!(sample["answers"], serde_json::json!([answer, answer]));
}

#[test]
fn no_id_stands_twice() {
    let html = full().html();
    let mut ids = attributes(&html, "id");
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
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
        ("metrics", |r| r.metrics.clear()),
        ("spread", |r| r.metrics.clear()),
        ("training", |r| r.training.clear()),
        ("merges", |r| r.merges.clear()),
        ("guidance", |r| r.curves.clear()),
        ("pictures", |r| r.samples.clear()),
        ("people", |r| r.ratings.clear()),
        ("data", |r| {
            r.funnel.clear();
            r.selected.clear();
        }),
        ("notes", |r| r.notes.clear()),
        ("settings", |r| {
            r.settings.clear();
            r.hashes.clear();
        }),
    ] {
        let section = format!("<section id=\"{id}\"");
        let mut report = full();
        assert!(report.html().contains(&section), "{id}");
        empty(&mut report);
        assert!(!report.html().contains(&section), "{id}");
        assert!(report.html().contains("<section"), "{id}");
    }
}

#[test]
fn numbers_of_the_charts_are_numbers() {
    let mut odd = full();
    odd.metrics[0].rows[0]
        .values
        .insert("x".to_owned(), f64::NAN);
    odd.metrics[1].rows[1].overall.mean = f64::NAN;
    odd.metrics[1].rows[2].values.clear();
    odd.training[0].steps[3].loss = f64::NAN;
    odd.training[0].steps[4].loss = f64::INFINITY;
    odd.merges[0].norm = f64::NAN;
    odd.merges[0].layers[0].norm = f64::INFINITY;
    odd.models[0].overall.mean = f64::NAN;
    odd.models[1].overall.high = f64::INFINITY;
    odd.models[2].guidance = f64::NAN;
    odd.models[2].by_category = by(&[("entity", 1.0), ("only here", 0.0)]);
    odd.curves[0].points.push((f64::NAN, estimate(0.5)));
    odd.curves[0].points.push((2.0, estimate(f64::NAN)));
    odd.curves[1].points.clear();
    odd.samples[0].images[0].score = f64::NAN;
    odd.funnel[0].parsed = 0;
    for report in [report(), full(), odd] {
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
fn several_metrics_stand_in_one_table_with_the_best_of_each() {
    let report = full();
    let markdown = report.markdown();
    let expected = "\
| model | DSG, judge | vs base | pickscore | vs base |
| --- | ---: | ---: | ---: | ---: |
| base | 70.0 (68.0 to 73.0) |  | 21.00 (20.98 to 21.03) |  |
";
    assert!(markdown.contains(expected), "{markdown}");
    let row = "| merged | **76.0** (74.0 to 79.0) | +6.0 (+4.0 to +9.0, p = 0.012) | **22.80** (22.78 to 22.83) | +0.06";
    assert!(markdown.replace('\u{a0}', " ").contains(row), "{markdown}");
    let table = report.table();
    assert!(
        table.starts_with("metrics       DSG, judge     pickscore\n"),
        "{table}"
    );
    assert!(
        table.contains("*76.0") && table.contains("*22.80"),
        "{table}"
    );
    let html = report.html();
    let stars = html.matches("title=\"best of its column\"").count();
    assert_eq!(stars, 5 + 2);
    assert!(html.contains("22.80<span class=\"star\""));
    // A single metric that is in the table of faithfulness needs no other.
    let mut one = report;
    one.metrics.truncate(1);
    assert!(!one.html().contains("<section id=\"metrics\""));
    one.models.clear();
    assert!(one.html().contains("<section id=\"metrics\""));
    assert!(one.table().starts_with("metrics"), "{}", one.table());
}

#[test]
fn trainings_and_merges_are_in_all_forms() {
    let report = full();
    let (html, markdown, csv) = (report.html(), report.markdown(), report.csv());
    for text in [
        "loss 0.0266 to 0.0007",
        "norm 0.25",
        "0.5 \u{d7} tags",
        "similar 380, too long 20",
    ] {
        assert!(html.contains(text), "{text}");
    }
    assert!(
        markdown.contains("| mean | mean | short, 0.5 \u{d7} tags | 1 | 64 | 0.36 | 0 | 1.1e-7 |"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| expert short | loss 0.0266 to 0.0007"),
        "{markdown}"
    );
    assert!(csv.contains("\nmean,,,merge,norm,0.36,,,,1,1\n"), "{csv}");
    assert!(
        csv.contains("\n,,,data,short: too_long,20,,,,20,20\n"),
        "{csv}"
    );
    assert!(
        csv.contains("\nbase,base,,metric,pickscore,21,20.98,21.03,,1500,300\n"),
        "{csv}"
    );
    assert!(
        csv.contains("\nbase,base,,quartiles,\"DSG, judge\",0.75,0.625,0.875,,3,3\n"),
        "{csv}"
    );
}

#[test]
fn what_people_said_is_in_all_forms() {
    let report = full();
    let html = report.html();
    for part in [
        "<section id=\"people\"",
        "<h3>march</h3>",
        "200 answers of 1 rater to 100 pairs of 100 prompts; 3 left open.",
        "merged over base",
        "<td class=\"change clear\"><span class=\"mean\">67.5</span><small>65.5\u{2013}70.5</small></td>",
        "<span class=\"won\" style=\"width:60%\">",
        "120, 30, 50",
        "<td>0.012</td>",
        "<td>0.42</td><td>0.32 to 0.52</td>",
        "alpha of the raters is 0.61 (0.50 to 0.70): 80.0% of the answers to the 90 pairs",
        "preferred in 51.0% (49.0 to 54.0)",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let markdown = report.markdown();
    for part in [
        "## People\n\n### march",
        "| all | 67.5 (65.5 to 70.5) | 70.6 (68.6 to 73.6) | 120, 30, 50 | 300 | 0.0004 | - |",
        "| colour | 50.0 (48.0 to 53.0) | - | 120, 30, 50 | 300 | 0.0004 | 0.0123 |",
        "| merged | 0.42 | 0.32 to 0.52 | 200 |",
    ] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
    let csv = report.csv();
    for part in [
        "\nmerged,merged,,win rate,march: base: all,0.675,",
        ",0.0004,1500,300\n",
        "\nmerged,merged,,win rate without ties,march: base: all,0.706,",
        "\nbase,base,,strength,march,-0.42,",
        "\n,other,,agreement,march,0.61,0.5,0.7,,180,90\n",
    ] {
        assert!(csv.contains(part), "{part}: {csv}");
    }
    // Nobody can tell how far one rater agrees, and two models have no strengths.
    let mut report = report;
    let result = &mut report.ratings[0].result;
    (result.agreement, result.ranking, result.left) = (None, None, None);
    for text in [report.html(), report.markdown()] {
        assert!(text.contains("How far raters agree is unknown"), "{text}");
        assert!(!text.contains("Bradley-Terry"));
    }
}

#[test]
fn a_file_of_ratings_is_read_back_and_another_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("march.json");
    let rating = rating();
    fs::write(&path, serde_json::to_vec(&rating.result).unwrap()).unwrap();
    let read = HumanRating::read(&path).unwrap();
    assert_eq!((read.name, read.result), (rating.name, rating.result));
    fs::write(&path, "{\"study\": \"0123\"}").unwrap();
    let error = HumanRating::read(&path).unwrap_err().to_string();
    for part in ["march.json", "selma rate import --format json", "study"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let error = HumanRating::read(&dir.path().join("none.json")).unwrap_err();
    assert!(error.to_string().contains("none.json"), "{error}");
}

#[test]
fn what_trainings_chose_is_in_all_forms() {
    let mut report = full();
    let html = report.html();
    for part in [
        "Pictures that trainings chose",
        "<td>800</td><td>500</td><td>400</td><td>50.0%</td>",
        "<span class=\"kept\" style=\"width:50%\">",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let markdown = report.markdown();
    assert!(
        markdown.contains("| short-filtered | short | 800 | 500 | 400 |"),
        "{markdown}"
    );
    for (name, count) in [("drawn", 800), ("passed", 500), ("used", 400)] {
        let row =
            format!("\nshort-filtered,,,selection,short: {name},{count},,,,{count},{count}\n");
        assert!(report.csv().contains(&row), "{row}: {}", report.csv());
    }
    // Without prompts of its own a run has this table all the same.
    report.funnel.clear();
    assert!(report.html().contains("Pictures that trainings chose"));
    report.selected.clear();
    assert!(!report.html().contains("<section id=\"data\""));
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
    // Four counts and two reasons of one skill.
    assert_eq!(lines.len(), 1 + 3 * 5 + 2 + 4 + 6);
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
            category: "spatial".to_owned(),
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
