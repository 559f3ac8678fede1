use std::fs;

use super::*;
use crate::testing::{Scripted, no_more};
use crate::{FinishReason, Prompt, RejectReason, Usage};

/// A model that is a function of the request: it makes captions from the request's seed, some of them again and again,
/// numbers them badly and chats. `fuel` is the number of requests it answers.
fn babbler(fuel: usize) -> Scripted {
    Scripted::new("babbler", move |call, request| {
        if call < fuel {
            Ok(babble(request))
        } else {
            Err(no_more())
        }
    })
}

fn babble(request: &ChatRequest) -> ChatResponse {
    // The paper's code sends no seed.
    let by_text = || {
        let bytes = request.text().into_bytes().into_iter();
        bytes.fold(7_u64, |hash, byte| {
            hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte)
        })
    };
    let seed = request.seed.unwrap_or_else(by_text);
    let word = |salt: u64| {
        let words = [
            "dog", "kite", "river", "lamp", "bread", "tower", "horse", "piano",
        ];
        words[((seed >> salt) % 8) as usize]
    };
    let mut text = "Sure, here they are:\n\n".to_owned();
    for salt in 0..6 {
        let number = if salt == 3 { 1 } else { salt + 4 };
        let (a, b, c) = (word(salt), word(salt + 5), word(salt + 11));
        text += &format!("{number}. {a} {b} near {c} number {}\n", seed % (17 + salt));
    }
    text += "10. A brown purse is sitting on a green bench.\nEnjoy!";
    let mut response = ChatResponse::single("babbler", text);
    response.usage = Some(Usage {
        prompt_tokens: 100,
        completion_tokens: 50,
    });
    response
}

/// Gives the same answer to every request.
fn parrot(text: &str) -> Scripted {
    Scripted::repeating(ChatResponse::single("parrot", text))
}

fn generator(config: PromptConfig) -> PromptGenerator {
    PromptGenerator::new(Skill::builtin("coco").unwrap(), config).unwrap()
}

fn count(count: usize) -> PromptConfig {
    PromptConfig {
        count,
        ..PromptConfig::default()
    }
}

fn quiet(_: &PromptEvent<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Every prompt found is somewhere.
fn adds_up(made: &Generation) {
    let report = made.report;
    let rejected: usize = report.rejections().iter().map(|(_, count)| count).sum();
    assert_eq!(made.rejected.len(), rejected);
    assert_eq!(made.prompts.len(), report.kept);
    assert_eq!(report.parsed, report.kept + rejected + report.surplus);
}

#[test]
fn the_count_is_met_exactly_and_adds_up() {
    let model = babbler(1000);
    let made = generator(count(40)).run(&model, None, &mut quiet).unwrap();
    let report = made.report;
    assert_eq!(
        (made.prompts.len(), report.kept, report.requested),
        (40, 40, 40)
    );
    assert_eq!(made.prompts[39].id, "coco-000039");
    adds_up(&made);
    assert!(
        report.rejected_similar > 0 && report.duplicates > 0,
        "{report:?}"
    );
    let requests = report.requests as usize;
    assert_eq!(model.asked().len(), requests);
    assert_eq!(report.usage.total_tokens(), 150 * report.requests);
    // "Sure" and "Enjoy!"; one number is wrong, so the next one is too.
    assert_eq!(report.skipped_lines, 2 * requests);
    assert_eq!(report.misnumbered, 2 * requests);
    // What was kept is what the filter says of it.
    let mut filter = selma_rouge::DiversityFilter::new(0.8, selma_rouge::Tokenizer::Rouge).unwrap();
    for seed in &generator(count(1)).skill().seeds {
        filter.insert(seed);
    }
    assert!(
        made.prompts
            .iter()
            .all(|prompt| filter.offer(&prompt.text).is_kept())
    );
    for rejected in &made.rejected {
        if let RejectReason::Similar { nearest, score } = &rejected.reason {
            let expected =
                selma_rouge::rouge_l(nearest, &rejected.text, selma_rouge::Tokenizer::Rouge);
            assert_eq!(expected.fmeasure, *score);
            assert!(*score > 0.8);
        }
    }
}

#[test]
fn requests_show_three_different_captions_of_a_growing_pool() {
    let model = babbler(1000);
    let made = generator(count(60)).run(&model, None, &mut quiet).unwrap();
    let asked = model.asked();
    let seeds = &generator(count(1)).skill().seeds.clone();
    let mut from_pool = 0;
    let mut orders = std::collections::HashSet::new();
    for request in asked.iter() {
        assert_eq!(
            (request.temperature, request.top_p, request.max_tokens),
            (1.0, 1.0, 3072)
        );
        let text = request.text();
        let shown: Vec<&str> = text
            .split("descriptions examples:")
            .last()
            .and_then(|text| text.split("examples:\n").last())
            .unwrap()
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.split_once(". ").unwrap().1)
            .collect();
        assert_eq!(shown.len(), 3);
        assert!(shown[0] != shown[1] && shown[1] != shown[2] && shown[0] != shown[2]);
        for caption in &shown {
            let seed = seeds.iter().any(|seed| seed == caption);
            assert!(seed || made.prompts.iter().any(|prompt| prompt.text == *caption));
            from_pool += usize::from(!seed);
        }
        orders.insert(text.clone());
    }
    assert!(from_pool > asked.len(), "{from_pool} of {}", asked.len());
    assert_eq!(orders.len(), asked.len());
}

#[test]
fn seed_and_skill_decide_everything() {
    let run = |seed, name: &str| {
        let config = PromptConfig { seed, ..count(30) };
        let generator = PromptGenerator::new(Skill::builtin(name).unwrap(), config).unwrap();
        let model = babbler(1000);
        generator.run(&model, None, &mut quiet).unwrap().prompts
    };
    let texts = |prompts: Vec<Prompt>| -> Vec<String> {
        prompts.into_iter().map(|prompt| prompt.text).collect()
    };
    assert_eq!(run(1, "coco"), run(1, "coco"));
    assert_ne!(run(1, "coco"), run(2, "coco"));
    assert_ne!(texts(run(1, "coco")), texts(run(1, "whoops")));
}

#[test]
fn a_run_killed_at_any_request_goes_on_to_the_same_prompts() {
    for strategy in Strategy::ALL {
        killed_anywhere(PromptConfig {
            strategy,
            ..count(30)
        });
    }
    killed_anywhere(PromptConfig {
        request_batch_size: Some(3),
        ..count(30)
    });
}

fn killed_anywhere(config: PromptConfig) {
    let dir = tempfile::tempdir().unwrap();
    let generator = generator(config);
    let mut journal = Journal::open(&dir.path().join("whole.jsonl")).unwrap();
    let whole = generator
        .run(&babbler(1000), Some(&mut journal), &mut quiet)
        .unwrap();
    let requests = usize::try_from(whole.report.requests).unwrap();
    assert_eq!(journal.len(), requests);
    assert!(requests > 3);
    for fuel in 0..requests {
        let path = dir.path().join(format!("{fuel}.jsonl"));
        let mut journal = Journal::open(&path).unwrap();
        let error = generator.run(&babbler(fuel), Some(&mut journal), &mut quiet);
        assert!(matches!(error, Err(LlmError::Unsupported { .. })));
        drop(journal);
        // Killed while the next answer was written.
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend(b"{\"request\":\"00");
        fs::write(&path, bytes).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.len(), fuel);
        let model = babbler(requests - fuel);
        let resumed = generator
            .run(&model, Some(&mut journal), &mut quiet)
            .unwrap();
        assert_eq!(resumed, whole);
        drop(journal);
        assert_eq!(
            fs::read(&path).unwrap(),
            fs::read(dir.path().join("whole.jsonl")).unwrap()
        );
    }
}

#[test]
fn an_observer_sees_everything_and_can_cancel() {
    let dir = tempfile::tempdir().unwrap();
    let generator = generator(count(20));
    let mut journal = Journal::open(&dir.path().join("j.jsonl")).unwrap();
    let (mut kept, mut rejected, mut asked) = (0, 0, 0);
    let made = generator
        .run(&babbler(1000), Some(&mut journal), &mut |event| {
            match event {
                PromptEvent::Asking {
                    request,
                    kept: so_far,
                    target,
                } => {
                    assert_eq!((*request, *so_far, *target), (asked, kept, 20));
                }
                PromptEvent::Answered {
                    request,
                    replayed,
                    parsed,
                } => {
                    assert_eq!((*request, *replayed, *parsed), (asked, false, 7));
                    asked += 1;
                }
                PromptEvent::Kept(_) => kept += 1,
                PromptEvent::Rejected(_) => rejected += 1,
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        (kept, rejected, asked),
        (20, made.rejected.len(), made.report.requests)
    );

    let mut cancel = |event: &PromptEvent<'_>| match event {
        PromptEvent::Kept(prompt) if prompt.id == "coco-000004" => ControlFlow::Break(()),
        PromptEvent::Answered {
            replayed: false, ..
        } => panic!("the journal has the answers"),
        _ => ControlFlow::Continue(()),
    };
    let error = generator
        .run(&babbler(0), Some(&mut journal), &mut cancel)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "skill 'coco' was cancelled at 5 of 20 prompts"
    );
}

#[test]
fn a_model_with_nothing_new_stalls() {
    let config = PromptConfig {
        max_stalled_requests: 4,
        ..count(10)
    };
    let model = parrot("4. A red kite.\n5. Three small boats at night.");
    let error = generator(config).run(&model, None, &mut quiet).unwrap_err();
    assert_eq!(
        error.to_string(),
        "skill 'coco' stalled at 2 of 10 prompts: the last 4 of 5 requests gave nothing new"
    );
    let silent = parrot("I cannot help with that.");
    let error = generator(count(1))
        .run(&silent, None, &mut quiet)
        .unwrap_err();
    assert!(matches!(
        error,
        LlmError::Stalled {
            kept: 0,
            requests: 20,
            ..
        }
    ));
}

#[test]
fn long_prompts_are_rejected_unless_told_otherwise() {
    let long = vec!["word"; 31].join(" ");
    let model = parrot(&format!("4. {long}\n5. A red kite."));
    let made = generator(count(1)).run(&model, None, &mut quiet).unwrap();
    assert_eq!(made.prompts[0].text, "A red kite.");
    let reason = RejectReason::TooLong {
        words: 31,
        limit: 30,
    };
    assert_eq!(made.rejected[0].reason, reason);
    assert_eq!(made.report.rejected_long, 1);
    let config = PromptConfig {
        enforce_max_words: false,
        ..count(1)
    };
    let made = generator(config).run(&model, None, &mut quiet).unwrap();
    assert_eq!(
        (made.prompts[0].text.as_str(), made.report.surplus),
        (long.as_str(), 1)
    );
}

#[test]
fn the_last_prompt_of_a_cut_answer_is_dropped() {
    let mut response = ChatResponse::single("parrot", "4. A red kite.\n5. Three small bo");
    response.choices[0].finish_reason = FinishReason::Length;
    let model = Scripted::repeating(response);
    let config = PromptConfig {
        max_stalled_requests: 1,
        ..count(2)
    };
    let mut texts = Vec::new();
    let result = generator(config).run(&model, None, &mut |event| {
        if let PromptEvent::Kept(prompt) = event {
            texts.push(prompt.text.clone());
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(result, Err(LlmError::Stalled { kept: 1, .. })));
    assert_eq!(texts, ["A red kite."]);
}

#[test]
fn all_choices_are_read_and_repetitions_without_words_are_seen() {
    let mut response = ChatResponse::single("parrot", "4. 一只狗\n5. 一只狗");
    let mut second = response.choices[0].clone();
    second.index = 1;
    second.text = "4. 🐶\n".to_owned();
    response.choices.push(second);
    let model = Scripted::repeating(response);
    let made = generator(count(2)).run(&model, None, &mut quiet).unwrap();
    let texts: Vec<&str> = made
        .prompts
        .iter()
        .map(|prompt| prompt.text.as_str())
        .collect();
    assert_eq!(texts, ["一只狗", "🐶"]);
    assert_eq!(made.rejected[0].reason, RejectReason::Duplicate);
}

#[test]
fn a_pool_smaller_than_the_examples_is_shown_whole() {
    let mut skill = Skill::builtin("coco").unwrap();
    skill.seeds.truncate(1);
    let generator = PromptGenerator::new(skill, count(1)).unwrap();
    let model = babbler(1);
    generator.run(&model, None, &mut quiet).unwrap();
    let text = model.asked()[0].text();
    assert!(text.ends_with("examples:\n\n1. Dogs stick their heads out of car windows.\n"));
}

#[test]
fn the_draw_is_uniform_and_never_changes() {
    let generator = generator(count(1));
    let pool = Pool::new(generator.skill(), generator.config()).unwrap();
    let mut first = [0_u32; 3];
    for index in 0..3000 {
        let examples = generator.examples(&pool, index);
        let seeds = &generator.skill().seeds;
        first[seeds.iter().position(|seed| *seed == examples[0]).unwrap()] += 1;
    }
    // 1000 each, standard deviation 26.
    assert!(
        first.iter().all(|count| (900..1100).contains(count)),
        "{first:?}"
    );
    // Journals of earlier versions hold answers to these very requests.
    let request = generator.request(&generator.examples(&pool, 0), 0);
    assert_eq!(request.seed, Some(1_154_427_968));
    let last: Vec<String> = (0..8)
        .filter_map(|index| generator.examples(&pool, index).pop())
        .map(|caption| caption.chars().take(3).collect())
        .collect();
    assert_eq!(
        last,
        ["A g", "Dog", "A g", "A g", "A b", "A b", "A b", "Dog"]
    );
}

#[test]
fn unusable_skills_and_settings_are_refused() {
    let mut skill = Skill::builtin("coco").unwrap();
    skill.seeds.clear();
    let error = PromptGenerator::new(skill, count(1)).unwrap_err();
    assert_eq!(error.to_string(), "coco: field `seeds` is empty");
    let error = PromptGenerator::new(Skill::builtin("coco").unwrap(), count(0)).unwrap_err();
    assert!(error.to_string().contains("`count`"));
}

mod strategies;
