//! Log probabilities of tokens, and what they say about an answer of one word.

use serde::{Deserialize, Serialize, Serializer};

use crate::Choice;

/// What stands for a probability of zero, whose logarithm JSON cannot write; vLLM sends the same.
const NEVER: f64 = -9999.0;

/// A token of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability.
    #[serde(serialize_with = "finite")]
    pub logprob: f64,
    /// The likeliest tokens in its place with their log probabilities, as many as were asked for, in the server's order.
    #[serde(default)]
    pub top: Vec<Alternative>,
}

/// A token that might have stood in another's place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token's text.
    pub token: String,
    /// Natural logarithm of its probability.
    #[serde(serialize_with = "finite")]
    pub logprob: f64,
}

fn finite<S: Serializer>(logprob: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(if logprob.is_finite() { *logprob } else { NEVER })
}

/// The probability of a word, as far as it can be known from the likeliest tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WordProbability {
    /// The sum over all tokens that spell the word.
    pub probability: f64,
    /// The sum over all tokens that the server listed. The word's true probability is at least `probability`, and
    /// greater by at most `1 - coverage`.
    pub coverage: f64,
}

impl Choice {
    /// How likely the answer was to begin with this word, counting every way to write its token: `Yes`, `yes`, ` Yes`,
    /// `▁yes`. This is what VQAScore (arXiv 2404.01291) reads off a question that is answered with yes or no.
    ///
    /// Blank tokens at the beginning are passed over. `None` without log probabilities or tokens. A word that the
    /// tokenizer always splits has probability 0.
    pub fn probability_of(&self, word: &str) -> Option<WordProbability> {
        let tokens = self.logprobs.as_ref()?;
        let first = tokens.iter().find(|token| !bare(&token.token).is_empty())?;
        let word = bare(word).to_lowercase();
        // The token that was drawn is not always among the likeliest.
        let drawn = (first.token.as_str(), first.logprob);
        let listed = first.top.iter().any(|other| other.token == first.token);
        let others = first.top.iter().map(|o| (o.token.as_str(), o.logprob));
        let all = others.chain((!listed).then_some(drawn));
        let (mut probability, mut coverage) = (0.0, 0.0);
        for (token, logprob) in all {
            coverage += logprob.exp();
            if bare(token).to_lowercase() == word {
                probability += logprob.exp();
            }
        }
        // Rounding may lift the sums above 1.
        Some(WordProbability {
            probability: probability.min(1.0),
            coverage: coverage.min(1.0),
        })
    }
}

/// A token without the marks of a word's beginning: white space, `▁` of SentencePiece, `Ġ` and `Ċ` of byte-level BPE.
fn bare(token: &str) -> &str {
    token.trim_matches(|c: char| c.is_whitespace() || matches!(c, '▁' | 'Ġ' | 'Ċ'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FinishReason;

    fn token(token: &str, p: f64, top: &[(&str, f64)]) -> TokenLogprob {
        let top = top.iter().map(|(token, p)| Alternative {
            token: (*token).to_owned(),
            logprob: p.ln(),
        });
        TokenLogprob {
            token: token.to_owned(),
            logprob: p.ln(),
            top: top.collect(),
        }
    }

    fn choice(tokens: Vec<TokenLogprob>) -> Choice {
        let mut choice = Choice::new(0, "", FinishReason::Stop);
        choice.logprobs = Some(tokens);
        choice
    }

    #[test]
    fn spellings_of_a_word_are_added_up() {
        let top = [(" Yes", 0.5), ("yes", 0.2), ("No", 0.1), ("▁YES", 0.05)];
        let choice = choice(vec![
            token("\n", 1.0, &[]),
            token(" Yes", 0.5, &top),
            token("!", 1.0, &[("yes", 1.0)]),
        ]);
        let yes = choice.probability_of("Yes").unwrap();
        assert!((yes.probability - 0.75).abs() < 1e-12, "{yes:?}");
        assert!((yes.coverage - 0.85).abs() < 1e-12, "{yes:?}");
        let no = choice.probability_of(" no").unwrap();
        assert!((no.probability - 0.1).abs() < 1e-12, "{no:?}");
        assert_eq!(choice.probability_of("maybe").unwrap().probability, 0.0);
    }

    #[test]
    fn the_drawn_token_counts_even_if_it_is_not_listed() {
        let choice = choice(vec![token("no", 0.01, &[("Yes", 0.6), ("No", 0.3)])]);
        let no = choice.probability_of("no").unwrap();
        assert!((no.probability - 0.31).abs() < 1e-12, "{no:?}");
        assert!((no.coverage - 0.91).abs() < 1e-12, "{no:?}");
    }

    #[test]
    fn without_tokens_nothing_is_known() {
        assert_eq!(choice(Vec::new()).probability_of("yes"), None);
        assert_eq!(
            choice(vec![token(" ", 1.0, &[])]).probability_of("yes"),
            None
        );
        let plain = Choice::new(0, "yes", FinishReason::Stop);
        assert_eq!(plain.probability_of("yes"), None);
    }

    #[test]
    fn an_impossible_token_survives_json() {
        let never = token("x", 0.0, &[("y", 0.0)]);
        let json = serde_json::to_string(&never).unwrap();
        let read: TokenLogprob = serde_json::from_str(&json).unwrap();
        assert_eq!((read.logprob, read.top[0].logprob), (NEVER, NEVER));
        assert_eq!(read.logprob.exp(), 0.0);
    }
}
