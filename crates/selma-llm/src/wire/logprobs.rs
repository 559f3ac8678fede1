//! Log probabilities in the two forms that servers send, whichever interface was asked (llama.cpp answers both alike).

use serde_json::Value;

use crate::{Alternative, TokenLogprob};

/// `{"content": [{"token", "logprob", "top_logprobs": [..]}]}` of chats, or
/// `{"tokens": [..], "token_logprobs": [..], "top_logprobs": [{token: logprob}]}` of completions. Tokens without a number
/// are left out; `None` if nothing is left.
pub(super) fn read_logprobs(logprobs: &Value) -> Option<Vec<TokenLogprob>> {
    let list = |field| logprobs.get(field).and_then(Value::as_array);
    let tokens: Vec<TokenLogprob> = match list("content") {
        Some(content) => content.iter().filter_map(chat_token).collect(),
        None => {
            let tops = list("top_logprobs").map(Vec::as_slice).unwrap_or_default();
            let tops = tops.iter().map(Some).chain(std::iter::repeat(None));
            let pairs = list("tokens")?.iter().zip(list("token_logprobs")?);
            let tokens = pairs.zip(tops).filter_map(|((token, logprob), top)| {
                let top = top.and_then(Value::as_object).into_iter().flatten();
                let top = top.filter_map(|(token, logprob)| alternative(token, logprob));
                Some(TokenLogprob {
                    token: token.as_str()?.to_owned(),
                    logprob: logprob.as_f64()?,
                    top: top.collect(),
                })
            });
            tokens.collect()
        }
    };
    (!tokens.is_empty()).then_some(tokens)
}

fn chat_token(token: &Value) -> Option<TokenLogprob> {
    let top = token.get("top_logprobs").and_then(Value::as_array);
    let top = top.into_iter().flatten().filter_map(|other| {
        let token = other.get("token").and_then(Value::as_str)?;
        alternative(token, other.get("logprob")?)
    });
    Some(TokenLogprob {
        token: token.get("token")?.as_str()?.to_owned(),
        logprob: token.get("logprob")?.as_f64()?,
        top: top.collect(),
    })
}

fn alternative(token: &str, logprob: &Value) -> Option<Alternative> {
    Some(Alternative {
        token: token.to_owned(),
        logprob: logprob.as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expected() -> Vec<TokenLogprob> {
        let alternative = |token: &str, logprob| Alternative {
            token: token.to_owned(),
            logprob,
        };
        vec![
            TokenLogprob {
                token: "Yes".to_owned(),
                logprob: -0.5,
                top: vec![alternative("Yes", -0.5), alternative("No", -1.0)],
            },
            TokenLogprob {
                token: ".".to_owned(),
                logprob: 0.0,
                top: Vec::new(),
            },
        ]
    }

    #[test]
    fn both_forms_say_the_same() {
        let chat = json!({"content": [
            {"token": "Yes", "logprob": -0.5, "bytes": [89], "top_logprobs": [
                {"token": "Yes", "logprob": -0.5}, {"token": "No", "logprob": -1, "bytes": null}, {"token": "x", "logprob": null}]},
            {"token": ".", "logprob": 0, "top_logprobs": null},
            {"token": "cut"},
        ], "refusal": null});
        assert_eq!(read_logprobs(&chat), Some(expected()));
        let completions = json!({
            "tokens": ["Yes", ".", "cut"], "token_logprobs": [-0.5, 0, null], "text_offset": [0, 3, 4],
            "top_logprobs": [{"Yes": -0.5, "No": -1.0, "x": "?"}, null],
        });
        assert_eq!(read_logprobs(&completions), Some(expected()));
        let none = json!({"tokens": ["."], "token_logprobs": [0], "top_logprobs": null});
        assert_eq!(read_logprobs(&none).unwrap(), expected()[1..]);
    }

    #[test]
    fn what_is_neither_is_nothing() {
        for logprobs in [
            json!(null),
            json!([]),
            json!({}),
            json!({"content": []}),
            json!({"content": null}),
            json!({"tokens": ["a"]}),
            json!({"tokens": "a", "token_logprobs": 1}),
        ] {
            assert_eq!(read_logprobs(&logprobs), None, "{logprobs}");
        }
    }
}
