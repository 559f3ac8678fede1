//! Values of flags that several sub-commands have.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use selma_lora::{Adapter, Kind, LoraError, RankRule, Weighted};
use selma_rouge::{DiversityFilter, Tokenizer};

/// A file with a weight, `FILE` or `FILE=WEIGHT`.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedFile {
    /// The file.
    pub path: PathBuf,
    /// The weight; 1 if none is given.
    pub weight: f64,
}

/// A LoRA; of anything else it says what helps.
pub fn load_lora(path: &Path) -> anyhow::Result<Adapter> {
    Adapter::load(path).map_err(advise)
}

/// The adapters of files with weights.
pub fn load_weighted(files: &[WeightedFile]) -> anyhow::Result<Vec<(Adapter, f64)>> {
    let load = |file: &WeightedFile| Ok((load_lora(&file.path)?, file.weight));
    files.iter().map(load).collect()
}

/// Adapters with their weights, as merging and fusing take them.
pub fn weighted(adapters: &[(Adapter, f64)]) -> Vec<Weighted<'_>> {
    let adapters = adapters.iter();
    adapters
        .map(|(adapter, weight)| Weighted {
            adapter,
            weight: *weight,
        })
        .collect()
}

/// Reads `FILE` or `FILE=WEIGHT`. The name may hold `=`: only a number behind the last one is a weight.
pub fn weighted_file() -> impl TypedValueParser<Value = WeightedFile> {
    OsStringValueParser::new().try_map(parse_weighted)
}

fn parse_weighted(value: OsString) -> Result<WeightedFile, String> {
    let plain = |path: OsString| WeightedFile {
        path: path.into(),
        weight: 1.0,
    };
    let split = value.to_str().and_then(|text| text.rsplit_once('='));
    let Some((path, weight)) =
        split.and_then(|(path, weight)| Some((path, weight.parse::<f64>().ok()?)))
    else {
        return Ok(plain(value));
    };
    if path.is_empty() {
        return Err("there is no file name before the weight".to_owned());
    }
    if !weight.is_finite() {
        return Err(format!("the weight must be finite, found {weight}"));
    }
    let path = path.into();
    Ok(WeightedFile { path, weight })
}

/// One of the names that a type reads by itself; the help lists them.
pub fn named<T>(names: impl Into<PossibleValuesParser>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: std::error::Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    names.into().try_map(|name| name.parse::<T>())
}

/// What is wrong with an adapter, and what helps against it.
pub fn advise(error: LoraError) -> anyhow::Error {
    let helps = match cause(&error) {
        LoraError::OtherKind {
            kind: Kind::Dora, ..
        } => "selma convert --rank RULE --base MODEL makes a LoRA of it",
        LoraError::OtherKind { .. } => "selma convert --rank RULE makes a LoRA of it",
        LoraError::Unsupported { .. } => "selma convert --rank RULE --without-rest leaves it out",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {helps}")
}

/// The error without the file around it.
pub fn cause(error: &LoraError) -> &LoraError {
    match error {
        LoraError::InFile { error, .. } => cause(error),
        error => error,
    }
}

/// How ranks are chosen.
pub fn rank_rule(text: &str) -> Result<RankRule, LoraError> {
    text.parse()
}

/// A finite number.
pub fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

/// A number from 0 to 1.
pub fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// A threshold that [`DiversityFilter`] takes.
pub fn threshold(text: &str) -> Result<f64, String> {
    let threshold = text.parse().map_err(|_| "expected a number".to_owned())?;
    match DiversityFilter::new(threshold, Tokenizer::default()) {
        Ok(_) => Ok(threshold),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_behind_the_last_sign_is_a_weight() {
        for (text, path, weight) in [
            ("a.safetensors", "a.safetensors", 1.0),
            ("a.safetensors=0.5", "a.safetensors", 0.5),
            ("a.safetensors=-2", "a.safetensors", -2.0),
            ("rank=8.safetensors", "rank=8.safetensors", 1.0),
            ("rank=8.safetensors=1e-1", "rank=8.safetensors", 0.1),
            ("rank=8=2", "rank=8", 2.0),
            ("a=", "a=", 1.0),
        ] {
            let path = path.into();
            assert_eq!(
                parse_weighted(text.into()),
                Ok(WeightedFile { path, weight }),
                "{text}"
            );
        }
        assert!(parse_weighted("=2".into()).is_err());
        assert!(parse_weighted("a=nan".into()).is_err());
    }

    #[test]
    fn a_threshold_is_in_its_range() {
        assert_eq!(threshold("0.8"), Ok(0.8));
        for wrong in ["0", "1.1", "nan", "much"] {
            assert!(threshold(wrong).is_err(), "{wrong}");
        }
    }
}
