//! The grammar as a language model.

mod brief;
mod write;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use selma_llm::{ChatModel, ChatRequest, ChatResponse, Choice, FinishReason, LlmError, Usage};

use crate::spec::mix;
use brief::Brief;

/// A language model that knows nothing but the captions of the miniature world.
///
/// It reads an instruction with numbered examples (of [`skill`](crate::skill), of SELMA's own skills, or any that names
/// its style in similar words), and continues the list in that style. Like a real model it repeats itself and the
/// examples, word for word or with one word changed, numbers badly now and then, and adds chatter. It never writes what
/// is held out for evaluation ([`Partition`](crate::Partition)).
///
/// The answer is a function of the request: its texts, seed, `n`, `max_tokens` (words and punctuation marks count as
/// tokens) and `stop`. Temperature and nucleus mass have no meaning here.
///
/// ```
/// use selma_llm::{ChatModel, ChatRequest, Message, parse_numbered_list};
/// use selma_mini::{GrammarModel, Style, skill};
///
/// let skill = skill(Style::CountBench)?;
/// let request = ChatRequest::new(vec![Message::user(skill.render(&skill.seeds))]).with_seed(7);
/// let answer = GrammarModel.complete(&request)?;
/// let list = parse_numbered_list(answer.text().unwrap_or_default(), 4);
/// assert_eq!(list.items.len(), 20);
/// # Ok::<(), selma_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct GrammarModel;

impl ChatModel for GrammarModel {
    fn name(&self) -> &str {
        "selma-mini-grammar"
    }

    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        if request.messages.iter().any(selma_llm::Message::has_image) {
            return Err(LlmError::Unsupported {
                model: self.name().to_owned(),
                what: "images".to_owned(),
            });
        }
        let text = request.text();
        let brief = Brief::read(&text);
        let mut usage = Usage {
            prompt_tokens: tokens(&text),
            completion_tokens: 0,
        };
        let mut choices = Vec::new();
        for index in 0..request.n {
            let mut rng = ChaCha8Rng::seed_from_u64(seed(&text, request.seed, index));
            let (text, finish_reason) = finished(&write::answer(&brief, &mut rng), request);
            usage.completion_tokens += tokens(&text);
            choices.push(Choice::new(choices.len(), text, finish_reason));
        }
        Ok(ChatResponse {
            model: self.name().to_owned(),
            choices,
            usage: Some(usage),
        })
    }
}

/// FNV-1a of the text, mixed with the request's seed and the choice's index.
fn seed(text: &str, seed: Option<u64>, index: u32) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash ^ mix(seed.unwrap_or(0)).wrapping_add(u64::from(index)))
}

/// Cuts the answer at the first stop text and at the token limit.
fn finished(answer: &str, request: &ChatRequest) -> (String, FinishReason) {
    let stop = request
        .stop
        .iter()
        .filter(|s| !s.is_empty())
        .filter_map(|s| answer.find(s.as_str()))
        .min();
    let answer = stop.and_then(|end| answer.get(..end)).unwrap_or(answer);
    let mut left = u64::from(request.max_tokens);
    let mut cut = String::new();
    for word in answer.split_inclusive(char::is_whitespace) {
        let cost = tokens(word);
        if cost > left {
            return (cut, FinishReason::Length);
        }
        left -= cost;
        cut.push_str(word);
    }
    (cut, FinishReason::Stop)
}

/// Words and punctuation marks.
fn tokens(text: &str) -> u64 {
    let marks = text.chars().filter(char::is_ascii_punctuation).count();
    let words = text
        .split(|c: char| c.is_whitespace() || c.is_ascii_punctuation())
        .filter(|w| !w.is_empty())
        .count();
    (marks + words) as u64
}

#[cfg(test)]
mod tests;
