use std::collections::HashSet;
use std::ops::ControlFlow;

use selma_llm::{Message, Part, PromptConfig, PromptGenerator, parse_numbered_list};

use super::*;
use crate::{Partition, Style, parse_caption, skill};

fn request(style: Style, seed: u64) -> ChatRequest {
    let skill = skill(style).unwrap();
    ChatRequest::new(vec![Message::user(skill.render(&skill.seeds))])
        .with_max_tokens(3072)
        .with_seed(seed)
}

fn answer(request: &ChatRequest) -> String {
    GrammarModel
        .complete(request)
        .unwrap()
        .choices
        .remove(0)
        .text
}

#[test]
fn answers_are_lists_of_captions_from_the_training_part() {
    for &style in Style::ALL {
        for seed in 0..60 {
            let text = answer(&request(style, seed));
            let list = parse_numbered_list(&text, 4);
            assert_eq!(list.items.len(), 20, "{style}, seed {seed}: {text}");
            for item in &list.items {
                let spec =
                    parse_caption(item).unwrap_or_else(|| panic!("{style}, seed {seed}: {item}"));
                assert_eq!(spec.partition(), Partition::Train, "{item}");
                assert_eq!(spec.is_unusual(), style == Style::Whoops, "{item}");
            }
        }
    }
}

#[test]
fn it_repeats_itself_misnumbers_and_chatters_now_and_then() {
    let (mut repeats, mut misnumbered, mut chatter) = (0, 0, 0);
    for seed in 0..100 {
        let list = parse_numbered_list(&answer(&request(Style::Coco, seed)), 4);
        let distinct: HashSet<&String> = list.items.iter().collect();
        repeats += list.items.len() - distinct.len();
        misnumbered += usize::from(list.misnumbered > 0);
        chatter += usize::from(list.skipped > 0);
    }
    assert!((30..=250).contains(&repeats), "{repeats} of 2000 lines");
    assert!(
        (5..=40).contains(&misnumbered),
        "{misnumbered} of 100 answers"
    );
    assert!((20..=70).contains(&chatter), "{chatter} of 100 answers");
}

#[test]
fn the_request_decides_the_answer() {
    let one = request(Style::Whoops, 1);
    assert_eq!(answer(&one), answer(&one.clone()));
    assert_ne!(answer(&one), answer(&request(Style::Whoops, 2)));
    let mut other = one.clone();
    other.messages.push(Message::user("please"));
    assert_ne!(answer(&one), answer(&other));
    let many = GrammarModel.complete(&one.with_n(3)).unwrap();
    let texts: HashSet<&str> = many.choices.iter().map(|c| c.text.as_str()).collect();
    assert_eq!((many.choices.len(), texts.len()), (3, 3));
}

#[test]
fn limits_and_stops_cut_the_answer() {
    let full = answer(&request(Style::LocalizedNarratives, 3));
    let limited = GrammarModel
        .complete(&request(Style::LocalizedNarratives, 3).with_max_tokens(100))
        .unwrap();
    let choice = &limited.choices[0];
    assert_eq!(choice.finish_reason, FinishReason::Length);
    assert!(full.starts_with(&choice.text) && tokens(&choice.text) <= 100);
    assert_eq!(
        limited.usage.unwrap().completion_tokens,
        tokens(&choice.text)
    );
    let stopped = GrammarModel
        .complete(&request(Style::Coco, 3).with_stop(vec!["7".to_owned()]))
        .unwrap();
    assert_eq!(stopped.choices[0].finish_reason, FinishReason::Stop);
    assert!(!stopped.choices[0].text.contains('7'));
}

#[test]
fn pictures_are_refused() {
    let image = Part::Image {
        media_type: "image/png".to_owned(),
        data: Vec::new(),
    };
    let request = ChatRequest::new(vec![Message::user("look").with_part(image)]);
    assert!(matches!(
        GrammarModel.complete(&request),
        Err(LlmError::Unsupported { .. })
    ));
}

#[test]
fn the_generation_loop_fills_up_and_filters() {
    for &style in Style::ALL {
        let config = PromptConfig {
            count: 60,
            ..PromptConfig::default()
        };
        let generator = PromptGenerator::new(skill(style).unwrap(), config).unwrap();
        let made = generator
            .run(&GrammarModel, None, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(made.prompts.len(), 60);
        assert!(
            made.report.rejected_similar + made.report.duplicates > 0,
            "{style}: {:?}",
            made.report
        );
        assert_eq!(made.report.rejected_long, 0, "{style}");
        let again = generator
            .run(&GrammarModel, None, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        assert_eq!(made, again);
        for prompt in &made.prompts {
            assert!(
                parse_caption(&prompt.text).is_some(),
                "{style}: {}",
                prompt.text
            );
        }
    }
}
