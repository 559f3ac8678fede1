//! What a dataset holds: an image, its text, and how it was made.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One row of `metadata.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The image's path in the dataset's folder, with `/` between its parts.
    pub file_name: String,
    /// The caption.
    pub text: String,
    /// SHA-256 of the image file in lower-case hexadecimal. [`DatasetWriter`](crate::DatasetWriter) always writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_sha256: Option<String>,
    /// How the image was made, if a model drew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// The row's other columns, which this crate keeps and does not interpret.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How a model drew an image: enough to draw it again.
///
/// In a file each field may be missing, and then is empty or zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provenance {
    /// Name of the skill whose prompts the text belongs to.
    pub skill: String,
    /// The prompt's identifier within its skill.
    pub prompt_id: String,
    /// Name of the model.
    pub model: String,
    /// Hash of the model's weights.
    pub model_hash: String,
    /// Seed of the initial noise. Written as a decimal string, because Arrow, on which Hugging Face `datasets` rests, and
    /// JavaScript read JSON numbers this large as floating-point numbers.
    #[serde(with = "decimal")]
    pub seed: u64,
    /// Name of the scheduler.
    pub scheduler: String,
    /// Number of denoising steps.
    pub steps: u32,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The negative prompt, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negative_prompt: Option<String>,
    /// The adapters in use: hash, or name with weight, as the program that drew the image writes them.
    pub adapters: Vec<String>,
}

/// A `u64` as a decimal string; a number is read too.
mod decimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(
        untagged,
        expecting = "expected a whole number from 0 to 2^64 - 1, as a number or a string"
    )]
    enum Form {
        Number(u64),
        Text(String),
    }

    #[allow(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands the field over by reference"
    )]
    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(number),
            Form::Text(text) => text.parse().map_err(|_| {
                D::Error::custom(format!(
                    "invalid seed `{text}`, expected a whole number from 0 to 2^64 - 1"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_seeds_survive() {
        let provenance = Provenance {
            seed: u64::MAX,
            ..Provenance::default()
        };
        let json = serde_json::to_string(&provenance).unwrap();
        assert!(json.contains(r#""seed":"18446744073709551615""#), "{json}");
        assert_eq!(
            serde_json::from_str::<Provenance>(&json).unwrap(),
            provenance
        );
        let number: Provenance = serde_json::from_str(r#"{"seed":18446744073709551615}"#).unwrap();
        assert_eq!(number, provenance);
    }

    #[test]
    fn bad_seeds_and_unknown_fields_are_refused() {
        for (json, reason) in [
            (r#"{"seed":"-1"}"#, "invalid seed `-1`"),
            (r#"{"seed":1.5}"#, "expected a whole number"),
            (r#"{"sead":1}"#, "unknown field `sead`"),
        ] {
            let error = serde_json::from_str::<Provenance>(json)
                .unwrap_err()
                .to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn other_columns_stay_in_order() {
        let json = r#"{"file_name":"a.png","text":"a","score":0.5,"b":[1],"a":null}"#;
        let sample: Sample = serde_json::from_str(json).unwrap();
        assert_eq!(sample.extra.keys().collect::<Vec<_>>(), ["score", "b", "a"]);
        assert_eq!(serde_json::to_string(&sample).unwrap(), json);
    }
}
