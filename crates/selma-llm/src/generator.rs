//! SELMA's first stage: an LLM writes prompts, the diversity filter keeps the new ones: [`PromptGenerator`].

use std::ops::ControlFlow;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

use crate::pool::Pool;
use crate::strategy::Focus;
use crate::{
    AskAll, ChatModel, ChatRequest, ChatResponse, Generation, Journal, LlmError, Message,
    PromptConfig, PromptEvent, Skill, Strategy,
};

/// Called with every event; `Break` ends the run with [`LlmError::Cancelled`].
pub type PromptObserver<'a> = dyn FnMut(&PromptEvent<'_>) -> ControlFlow<()> + 'a;

/// Makes prompts for one skill with the loop of SELMA (arXiv 2403.06952, section 3.1; `llm/prompt_generation.py`).
///
/// A pool begins with the skill's seeds and grows by every accepted prompt. Each request shows three captions drawn from
/// the pool without replacement and asks for more; each caption of the answer is accepted unless its ROUGE-L F with any
/// of the pool is greater than 0.8. Other ways to ask are a [`Strategy`].
///
/// The draw and what is asked for besides depend on the seed, the skill's name and the request's number alone, and the
/// answers come from the journal once they are there: a run that was killed goes on as if it had not been.
#[derive(Debug, Clone)]
pub struct PromptGenerator {
    skill: Skill,
    config: PromptConfig,
    focus: Focus,
}

impl PromptGenerator {
    /// A generator for `skill`.
    ///
    /// # Errors
    /// [`LlmError::SkillField`] and [`LlmError::Config`] for values that cannot be used.
    pub fn new(skill: Skill, config: PromptConfig) -> Result<Self, LlmError> {
        skill.check(Path::new(&skill.name))?;
        config.validate()?;
        let random = rng(&skill, &config, b"focus", 0).next_u64();
        let focus = Focus::new(config.strategy, &skill, random)?;
        Ok(Self {
            skill,
            config,
            focus,
        })
    }

    /// The skill.
    pub fn skill(&self) -> &Skill {
        &self.skill
    }

    /// The settings.
    pub fn config(&self) -> &PromptConfig {
        &self.config
    }

    /// Asks `model` until the wanted number of prompts is accepted. With a journal, answers in it are not asked for
    /// again, and new ones are recorded before they are read.
    ///
    /// # Errors
    /// [`LlmError::Stalled`] if too many answers in a row bring nothing new, [`LlmError::Cancelled`] if the observer
    /// breaks, else those of the model and of the journal. Nothing is lost: a further run with the journal goes on there.
    pub fn run(
        &self,
        model: &dyn ChatModel,
        mut journal: Option<&mut Journal>,
        observer: &mut PromptObserver<'_>,
    ) -> Result<Generation, LlmError> {
        let mut pool = Pool::new(&self.skill, &self.config)?;
        let mut stalled = 0;
        while pool.missing() > 0 {
            let replies = self.ask(&pool, model, journal.as_deref_mut(), observer)?;
            for Reply {
                response,
                replayed,
                first,
            } in replies
            {
                let index = pool.requests();
                let kept = pool.kept();
                let captions = pool.read(&response, self.config.strategy.parser(), first);
                self.go_on(
                    kept,
                    observer(&PromptEvent::Answered {
                        request: index,
                        replayed,
                        parsed: captions.len(),
                    }),
                )?;
                for caption in captions {
                    if let Some(event) = pool.offer(&self.skill, caption) {
                        let flow = observer(&event);
                        self.go_on(pool.kept(), flow)?;
                    }
                }
                stalled = if pool.kept() > kept { 0 } else { stalled + 1 };
            }
            // A batch that reaches the target may end with answers that were not needed.
            if pool.missing() > 0 && stalled >= self.config.max_stalled_requests {
                return Err(LlmError::Stalled {
                    skill: self.skill.name.clone(),
                    kept: pool.kept(),
                    target: self.config.count,
                    stalled,
                    requests: pool.requests(),
                });
            }
        }
        Ok(pool.finish(model.price()))
    }

    /// Makes all requests of a batch, on one state of the pool, as many at once as the model likes.
    fn ask(
        &self,
        pool: &Pool,
        model: &dyn ChatModel,
        journal: Option<&mut Journal>,
        observer: &mut PromptObserver<'_>,
    ) -> Result<Vec<Reply>, LlmError> {
        let kept = pool.kept();
        let mut requests = Vec::new();
        // For each request the number that its list should begin with.
        let mut first_numbers = Vec::new();
        for place in 0..self.config.batch_size() as u64 {
            let index = pool.requests() + place;
            self.go_on(
                kept,
                observer(&PromptEvent::Asking {
                    request: index,
                    kept,
                    target: self.config.count,
                }),
            )?;
            let examples = self.examples(pool, index);
            first_numbers.push(examples.len() + 1);
            requests.push(self.request(&examples, index));
        }
        let mut ask = AskAll::new(model);
        if let Some(journal) = journal {
            ask = ask.with_journal(journal, pool.requests());
        }
        let responses = ask.run_marked(&requests, &mut |_| ControlFlow::Continue(()))?;
        let replies = responses.into_iter().zip(first_numbers);
        let reply = |((response, replayed), first)| Reply {
            response,
            replayed,
            first,
        };
        Ok(replies.map(reply).collect())
    }

    /// The request with this number, counted from 0.
    fn request(&self, examples: &[String], index: u64) -> ChatRequest {
        let sentence = self.focus.sentence(index, self.skill.count);
        let text = self.skill.render_with(sentence.as_deref(), examples);
        let request = ChatRequest::new(vec![Message::user(text)])
            .with_temperature(self.config.temperature)
            .with_top_p(self.config.top_p)
            .with_max_tokens(self.config.max_tokens);
        if self.config.strategy == Strategy::SelmaOfficial {
            // The paper's code sends none, and servers take prompts together only if nothing else differs.
            return request;
        }
        // 31 bits fit the integers of every server.
        request.with_seed(u64::from(self.rng(b"sampling", index).next_u32() >> 1))
    }

    /// Captions of the pool, or seeds, drawn without replacement (a partial Fisher-Yates shuffle).
    fn examples(&self, pool: &Pool, index: u64) -> Vec<String> {
        let mut rng = self.rng(b"examples", index);
        let mut captions: Vec<&str> = match self.config.strategy {
            Strategy::Seeds => pool.seeds().collect(),
            _ => pool.captions().collect(),
        };
        let drawn = self.config.examples.min(captions.len());
        for position in 0..drawn {
            let rest = captions.len() - position;
            captions.swap(position, position + below(&mut rng, rest));
        }
        captions
            .into_iter()
            .take(drawn)
            .map(str::to_owned)
            .collect()
    }

    fn rng(&self, purpose: &[u8], index: u64) -> ChaCha8Rng {
        rng(&self.skill, &self.config, purpose, index)
    }

    fn go_on(&self, kept: usize, flow: ControlFlow<()>) -> Result<(), LlmError> {
        match flow {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(LlmError::Cancelled {
                skill: self.skill.name.clone(),
                kept,
                target: self.config.count,
            }),
        }
    }
}

/// What a request brought.
#[derive(Debug)]
struct Reply {
    response: ChatResponse,
    /// Whether it came from the journal.
    replayed: bool,
    /// The number that its list should begin with.
    first: usize,
}

/// Random numbers for one purpose of one request.
fn rng(skill: &Skill, config: &PromptConfig, purpose: &[u8], index: u64) -> ChaCha8Rng {
    let mut hash = Sha256::new();
    hash.update(config.seed.to_le_bytes());
    hash.update(index.to_le_bytes());
    hash.update(purpose);
    hash.update([0]);
    hash.update(skill.name.as_bytes());
    ChaCha8Rng::from_seed(hash.finalize().into())
}

/// A number in `0..limit` (0 for a limit of 0): the upper half of a 64 by 64 bit product, whose bias is below
/// `limit / 2^64`. Written out because journals outlive versions of libraries whose ranges may change.
fn below(rng: &mut ChaCha8Rng, limit: usize) -> usize {
    ((u128::from(rng.next_u64()) * limit as u128) >> 64) as usize
}

#[cfg(test)]
mod tests;
