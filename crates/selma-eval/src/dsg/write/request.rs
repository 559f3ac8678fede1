//! What the model is asked in each step.

use std::fmt::Write as _;

use selma_llm::{ChatRequest, Message};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Step,
    answer::{Dependency, Question, Tuple},
};

/// Most tokens of an answer; the longest prompts of DSG-1k have more than 50 tuples.
const MAX_TOKENS: u32 = 8192;

/// Five prompts of our own with their facts.
const EXAMPLES: &str = include_str!("examples.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    prompt: String,
    tuples: Vec<ExampleTuple>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleTuple {
    category: String,
    detail: String,
    words: Vec<String>,
    parents: Vec<u32>,
    question: String,
}

/// The tasks in the words of DSG's `query_utils.py`; the last sentence is ours, in the place of "output format: id | ...".
fn preamble(step: Step) -> &'static str {
    match step {
        Step::Tuples => {
            "Task: given input prompts, describe each scene with skill-specific tuples.\n\
             Do not generate same tuples again. Do not generate tuples that are not explicitly described in the prompts.\n\
             output format: JSON; category is entity, attribute, relation, global or other; detail says of which kind, such as \
             whole, part, color, state, material, spatial, action, count or text rendering, and is - for global"
        }
        Step::Dependencies => {
            "Task: given input prompts and tuples, describe the parent tuples of each tuple.\n\
             output format: JSON; no parents if the tuple stands for itself"
        }
        Step::Questions => {
            "Task: given input prompts and skill-specific tuples, re-write tuple each in natural language question.\n\
             output format: JSON; each question can be answered with yes or no"
        }
    }
}

/// The request of a step for a prompt; `tuples` are those of the first step.
///
/// # Errors
/// Says what is wrong with the examples that come along.
pub(super) fn request(step: Step, prompt: &str, tuples: &[Tuple]) -> Result<ChatRequest, String> {
    let examples: Vec<Example> =
        serde_json::from_str(EXAMPLES).map_err(|error| format!("examples.json: {error}"))?;
    let mut text = preamble(step).to_owned();
    for example in examples {
        let (tuples, output) = worked(step, &example);
        let input = input(step, &example.prompt, &tuples);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n\ninput: {input}\noutput: {output}");
    }
    let _ = write!(text, "\n\ninput: {}\noutput: ", input(step, prompt, tuples));
    Ok(ChatRequest::new(vec![Message::user(text)])
        .with_temperature(0.0)
        .with_max_tokens(MAX_TOKENS)
        .with_json_schema(step.name(), schema(step, tuples.len())))
}

/// The prompt and, after the first step, a line for each tuple: `1 | entity - whole (dog)`.
fn input(step: Step, prompt: &str, tuples: &[Tuple]) -> String {
    // A line is a tuple here, so that a prompt must be one line.
    let mut input = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    if step != Step::Tuples {
        for tuple in tuples {
            let _ = write!(input, "\n{} | {tuple}", tuple.id);
        }
    }
    input
}

/// An example's tuples, and the answer to the step.
fn worked(step: Step, example: &Example) -> (Vec<Tuple>, Value) {
    let numbered = || (1..).zip(&example.tuples);
    let tuples: Vec<Tuple> = numbered()
        .map(|(id, tuple)| Tuple {
            id,
            category: tuple.category.clone(),
            detail: tuple.detail.clone(),
            words: tuple.words.clone(),
        })
        .collect();
    let output = match step {
        Step::Tuples => json!({"tuples": tuples}),
        Step::Dependencies => {
            let all = numbered().map(|(id, tuple)| Dependency {
                id,
                parents: tuple.parents.clone(),
            });
            json!({"dependencies": all.collect::<Vec<_>>()})
        }
        Step::Questions => {
            let all = numbered().map(|(id, tuple)| Question {
                id,
                question: tuple.question.clone(),
            });
            json!({"questions": all.collect::<Vec<_>>()})
        }
    };
    (tuples, output)
}

/// The form of the answer. After the first step the ids are those of the tuples, as many as there are.
fn schema(step: Step, tuples: usize) -> Value {
    let list = |name: &str, bounds: &[(&str, usize)], properties: Value| {
        let fields: Vec<&String> = properties
            .as_object()
            .into_iter()
            .flat_map(|properties| properties.keys())
            .collect();
        let item = json!({"type": "object", "properties": properties, "required": fields, "additionalProperties": false});
        let mut items = Map::new();
        items.insert("type".to_owned(), "array".into());
        items.insert("items".to_owned(), item);
        for (bound, value) in bounds {
            items.insert((*bound).to_owned(), (*value).into());
        }
        json!({"type": "object", "properties": {name: items}, "required": [name], "additionalProperties": false})
    };
    let ids: Vec<usize> = (1..=tuples).collect();
    let or_none: Vec<usize> = (0..=tuples).collect();
    let each = [("minItems", tuples), ("maxItems", tuples)];
    let id = json!({"type": "integer", "enum": ids});
    match step {
        Step::Tuples => list(
            "tuples",
            &[("minItems", 1)],
            json!({
                "id": {"type": "integer", "minimum": 1},
                "category": {"type": "string", "enum": ["entity", "attribute", "relation", "global", "other"]},
                "detail": {"type": "string"},
                "words": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            }),
        ),
        Step::Dependencies => list(
            "dependencies",
            &each,
            json!({"id": id, "parents": {"type": "array", "items": {"type": "integer", "enum": or_none}}}),
        ),
        Step::Questions => list(
            "questions",
            &each,
            json!({"id": id, "question": {"type": "string"}}),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsg::write::answer::{Dependencies, Questions, Tuples};

    fn text(step: Step, tuples: &[Tuple]) -> String {
        request(step, "a dog\nand a cat", tuples).unwrap().text()
    }

    fn dog() -> Vec<Tuple> {
        vec![Tuple {
            id: 1,
            category: "entity".to_owned(),
            detail: "whole".to_owned(),
            words: vec!["dog".to_owned()],
        }]
    }

    #[test]
    fn a_request_has_the_published_structure() {
        let tuples = text(Step::Tuples, &[]);
        assert!(tuples.starts_with(
            "Task: given input prompts, describe each scene with skill-specific tuples.\nDo not"
        ));
        assert!(
            tuples.ends_with("\n\ninput: a dog and a cat\noutput: "),
            "{tuples}"
        );
        assert_eq!(tuples.matches("\n\ninput: ").count(), 6);
        let dependencies = text(Step::Dependencies, &dog());
        assert!(dependencies.contains("\n1 | entity - whole (motorcycle)\n2 | entity - whole (doors)\n3 | attribute - color (motorcycle, red)\n"));
        assert!(
            dependencies.contains("{\"id\":7,\"parents\":[1,2]}"),
            "{dependencies}"
        );
        assert!(
            dependencies.ends_with("input: a dog and a cat\n1 | entity - whole (dog)\noutput: ")
        );
        assert!(
            text(Step::Questions, &dog())
                .contains("{\"id\":3,\"question\":\"Is the motorcycle red?\"}")
        );
    }

    #[test]
    fn the_examples_are_what_is_wanted_of_the_model() {
        let examples: Vec<Example> = serde_json::from_str(EXAMPLES).unwrap();
        assert_eq!(examples.len(), 5);
        for example in &examples {
            let count = example.tuples.len();
            let (_, output) = worked(Step::Tuples, example);
            serde_json::from_value::<Tuples>(output).unwrap();
            let (_, output) = worked(Step::Dependencies, example);
            serde_json::from_value::<Dependencies>(output).unwrap();
            let (_, output) = worked(Step::Questions, example);
            serde_json::from_value::<Questions>(output).unwrap();
            let parents = example.tuples.iter().flat_map(|tuple| &tuple.parents);
            assert!(
                parents
                    .copied()
                    .all(|parent| (1..=count as u32).contains(&parent))
            );
        }
        for (step, tuples) in [
            (Step::Tuples, vec![]),
            (Step::Dependencies, dog()),
            (Step::Questions, dog()),
        ] {
            request(step, "a dog", &tuples)
                .unwrap()
                .json_schema
                .unwrap()
                .validate()
                .unwrap();
        }
    }
}
