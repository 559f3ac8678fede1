//! What the strategies and rules do to a run.

use selma_rouge::{Tokenizer, rouge_l};

use super::*;
use crate::{BlockList, Choice, Parser};

/// The examples at the end of a request.
fn shown(request: &ChatRequest) -> Vec<String> {
    let text = request.text();
    let (_, list) = text.rsplit_once("examples:\n").unwrap();
    list.lines()
        .filter_map(|line| line.split_once(". "))
        .map(|(_, caption)| caption.to_owned())
        .collect()
}

fn with(strategy: Strategy, target: usize) -> PromptConfig {
    PromptConfig {
        strategy,
        ..count(target)
    }
}

/// Gives these answers, which end for these reasons, then empty ones.
fn prepared(answers: &[(&str, FinishReason)]) -> Scripted {
    let answers: Vec<ChatResponse> = answers
        .iter()
        .map(|(text, finish_reason)| {
            let mut response = ChatResponse::single("prepared", *text);
            response.choices[0].finish_reason = finish_reason.clone();
            response
        })
        .collect();
    Scripted::new("prepared", move |call, _| {
        let next = answers.get(call).cloned();
        Ok(next.unwrap_or_else(|| ChatResponse::single("prepared", "")))
    })
}

/// The loop of `llm/prompt_generation.py`, written down line by line, over the answers that the model gave.
fn official(seeds: &[String], answers: &[String], target: usize) -> Vec<String> {
    let mut all = seeds.to_vec();
    let mut answers = answers.chunks(5);
    while all.len() - seeds.len() < target {
        let batch = answers.next().unwrap();
        let captions: Vec<String> = batch
            .iter()
            .flat_map(|answer| Parser::SelmaOfficial.parse(answer, 4).items)
            .collect();
        for caption in captions {
            let score = |other: &String| rouge_l(other, &caption, Tokenizer::Rouge).fmeasure;
            if all.iter().map(score).fold(0.0, f64::max) > 0.8 {
                continue;
            }
            all.push(caption);
        }
    }
    assert!(answers.next().is_none(), "asked for more than needed");
    all.split_off(seeds.len())
}

#[test]
fn the_official_loop_is_followed_to_the_letter() {
    for target in [1, 10, 33] {
        let model = babbler(1000);
        let generator = generator(with(Strategy::SelmaOfficial, target));
        let made = generator.run(&model, None, &mut quiet).unwrap();
        adds_up(&made);
        let asked = model.asked();
        let answers: Vec<String> = asked
            .iter()
            .map(|request| babble(request).text().unwrap().to_owned())
            .collect();
        let seeds = &generator.skill().seeds;
        let expected = official(seeds, &answers, target);
        let texts: Vec<&String> = made.prompts.iter().map(|prompt| &prompt.text).collect();
        assert_eq!(texts, expected.iter().collect::<Vec<_>>());
        // The target is looked at between batches only.
        assert!(made.prompts.len() >= target);
        assert_eq!(made.report.surplus, 0);
        if target == 1 {
            assert!(made.prompts.len() > 1);
        }
        // All requests of a batch draw from the same pool.
        let mut known = seeds.clone();
        for (batch, answers) in asked.chunks(5).zip(answers.chunks(5)) {
            for request in batch {
                let shown = shown(request);
                assert_eq!(shown.len(), 3);
                assert!(shown.iter().all(|caption| known.contains(caption)));
            }
            let new = answers
                .iter()
                .flat_map(|answer| Parser::SelmaOfficial.parse(answer, 4).items);
            known.extend(new.filter(|caption| expected.contains(caption)));
        }
    }
}

#[test]
fn the_official_loop_has_no_limits_and_keeps_what_was_cut() {
    let long = vec!["word"; 60].join(" ");
    let text = format!("4. {long}\n5. 狗\n6. 狗\n7. A red ki");
    let model = prepared(&[(&text, FinishReason::Length)]);
    let made = generator(with(Strategy::SelmaOfficial, 1))
        .run(&model, None, &mut quiet)
        .unwrap();
    let texts: Vec<&str> = made
        .prompts
        .iter()
        .map(|prompt| prompt.text.as_str())
        .collect();
    // Texts without ASCII letters and digits are never rejected.
    assert_eq!(texts, [long.as_str(), "狗", "狗", "A red ki"]);
    assert_eq!((made.report.cut, made.report.requests), (0, 5));
}

#[test]
fn seeds_shows_seeds_alone() {
    let model = babbler(1000);
    let mut skill = Skill::builtin("coco").unwrap();
    skill.seeds.push("A fourth one.".to_owned());
    let generator = PromptGenerator::new(skill, with(Strategy::Seeds, 60)).unwrap();
    generator.run(&model, None, &mut quiet).unwrap();
    let asked = model.asked();
    let mut orders = std::collections::HashSet::new();
    for request in asked.iter() {
        let shown = shown(request);
        assert!(
            shown
                .iter()
                .all(|caption| generator.skill().seeds.contains(caption))
        );
        orders.insert(shown);
    }
    // 24 orders of three of four.
    assert!(
        asked.len() > 8 && orders.len() > 6,
        "{} {}",
        asked.len(),
        orders.len()
    );
}

#[test]
fn combinations_and_topics_stand_before_the_examples() {
    for (strategy, sentence) in [
        (
            Strategy::Stratified,
            "Each image description should show one of these combinations, in this order: color: ",
        ),
        (
            Strategy::Taxonomy,
            "All image descriptions should be about this topic: ",
        ),
    ] {
        let run = |seed| {
            let model = babbler(1000);
            let config = PromptConfig {
                seed,
                ..with(strategy, 30)
            };
            let made = generator(config).run(&model, None, &mut quiet).unwrap();
            adds_up(&made);
            assert_eq!(made.prompts.len(), 30);
            let asked = model.asked();
            let sentences: Vec<String> = asked
                .iter()
                .map(|request| {
                    let text = request.text();
                    let lines: Vec<&str> = text.lines().collect();
                    let announced = lines.iter().position(|line| line.contains("examples:"));
                    assert_eq!(shown(request).len(), 3);
                    lines[announced.unwrap() - 2].to_owned()
                })
                .collect();
            let start = sentences[0].clone();
            assert!(start.starts_with(sentence), "{start}");
            let different: std::collections::HashSet<&String> = sentences.iter().collect();
            assert_eq!(different.len(), sentences.len());
            assert!(different.len() > 4);
            if strategy == Strategy::Stratified {
                assert_eq!(start.matches("; ").count(), 19, "one for each of 20");
            }
            sentences
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1)[0], run(2)[0]);
    }
}

#[test]
fn a_batch_ends_at_the_exact_count() {
    let config = PromptConfig {
        request_batch_size: Some(4),
        ..count(9)
    };
    let model = babbler(1000);
    let made = generator(config).run(&model, None, &mut quiet).unwrap();
    adds_up(&made);
    assert_eq!((made.prompts.len(), made.report.requests % 4), (9, 0));
    assert!(made.report.surplus > 0);
}

#[test]
fn every_rejection_is_counted() {
    let mut skill = Skill::builtin("coco").unwrap();
    skill.min_words = 2;
    skill.max_characters = 100;
    skill.scripts = vec!["latin".to_owned()];
    let config = PromptConfig {
        block_list: BlockList::new(["gore"]).unwrap(),
        drop_named_artists: true,
        ..count(2)
    };
    let generator = PromptGenerator::new(skill, config).unwrap();
    let text = format!(
        "4. {}\n5. {}\n6. kite\n7. a \u{fffd} kite\n8. красный кот\n9. much Gore here\n\
        10. a sky by greg rutkowski\n11. A brown purse is sitting on a green bench.\n\
        12. A brown purse is sitting on the green bench.\n\
        13. Please create 20 more image descriptions.\n14. A \u{0}red kite.\n15. Two cups.\n16. One more.\n",
        "a".repeat(1_000_000),
        vec!["a"; 31].join(" "),
    );
    let model = prepared(&[(&text, FinishReason::Stop)]);
    let made = generator.run(&model, None, &mut quiet).unwrap();
    adds_up(&made);
    let texts: Vec<&str> = made
        .prompts
        .iter()
        .map(|prompt| prompt.text.as_str())
        .collect();
    assert_eq!(texts, ["A red kite.", "Two cups."]);
    for (reason, count) in made.report.rejections() {
        assert_eq!(count, 1, "{reason}");
    }
    assert_eq!(
        (made.report.surplus, made.report.removed_characters),
        (1, 1)
    );
    assert_eq!(made.rejected[0].text.len(), 1_000_000);
}

#[test]
fn why_an_answer_ended_is_looked_at() {
    let json = r#"["A red kite.", "Two cups.", "Three sm"#;
    for (text, reason, expected, cut, filtered) in [
        ("4. A red ki", FinishReason::Length, 0, 1, 0),
        ("4. A red kite.\n5. Two c", FinishReason::Length, 1, 1, 0),
        (
            "4. A red kite.\n5. Two c",
            FinishReason::ContentFilter,
            1,
            1,
            1,
        ),
        (
            "4. A red kite.\n5. Two cups",
            FinishReason::Other("eos".into()),
            2,
            0,
            0,
        ),
        // Of JSON the whole items are known, and nothing whole is dropped.
        (json, FinishReason::Length, 2, 1, 0),
        (json, FinishReason::Stop, 2, 1, 0),
        (
            r#"["A red kite.", "Two cups."]"#,
            FinishReason::Length,
            2,
            0,
            0,
        ),
        ("", FinishReason::ContentFilter, 0, 0, 1),
    ] {
        // A second answer fills up.
        let rest = "4. Four green apples.\n5. Five dogs bark.\n6. Six hens on a roof.";
        let model = prepared(&[(text, reason), (rest, FinishReason::Stop)]);
        let made = generator(count(3)).run(&model, None, &mut quiet).unwrap();
        adds_up(&made);
        let first = made
            .prompts
            .iter()
            .filter(|p| ["A red kite.", "Two cups.", "Two cups"].contains(&p.text.as_str()));
        assert_eq!(first.count(), expected, "{text}");
        assert_eq!(
            (made.report.cut, made.report.filtered),
            (cut, filtered),
            "{text}"
        );
        // Where a prompt was cut, one was found.
        let without_prompts = usize::from(text.is_empty());
        assert_eq!(made.report.without_prompts, without_prompts, "{text}");
    }
}

#[test]
fn every_choice_may_be_json() {
    let mut response = ChatResponse::single("m", "{\"captions\": [\"A red kite.\"]}");
    response.choices.push(Choice {
        index: 1,
        text: "```json\n[\"Two cups.\"]\n```".to_owned(),
        finish_reason: FinishReason::Stop,
        logprobs: None,
    });
    let made = generator(count(2))
        .run(&Scripted::repeating(response), None, &mut quiet)
        .unwrap();
    assert_eq!(made.prompts[1].text, "Two cups.");
}
