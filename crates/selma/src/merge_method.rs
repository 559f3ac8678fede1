//! The methods of a recipe's `[merge]`.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use selma_lora::merge::{Calibration, Merge, Method};
use serde::de::{DeserializeOwned, Error};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::SelmaError;

/// One way of merging the experts: in a recipe the name of a method, or a table with a method and its options, such as
/// `{ method = "peft_ties", density = 0.3, name = "ties-0.3" }`.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeMethod {
    /// What files, models and the report call it; the method's name if nothing else is said.
    pub name: String,
    /// The method and its options. Masks from outside have no place in a recipe; statistics are in a file of their own.
    pub merge: Merge,
    /// A file with the statistics of the experts ([`Calibration`]), for `ssr`. It is read when the experts are merged, as it cannot be
    /// there before they are.
    pub calibration: Option<PathBuf>,
    /// The weight of each expert, in the order of the skills; 1 for all if there are none.
    pub weights: Vec<f64>,
}

impl MergeMethod {
    /// The weights of `experts` experts.
    pub(crate) fn weights(&self, experts: usize) -> Vec<f64> {
        if self.weights.is_empty() {
            vec![1.0; experts]
        } else {
            self.weights.clone()
        }
    }

    /// Checks the options against the method and the number of experts.
    ///
    /// # Errors
    ///
    /// The first that cannot be used.
    pub(crate) fn validate(&self, experts: usize) -> Result<(), SelmaError> {
        let given = self.weights.len();
        if given != 0 && given != experts {
            return Err(SelmaError::Setting {
                field: format!("merge.methods, {}", self.name),
                expected: format!("{experts} weights, one for each skill"),
                found: given.to_string(),
            });
        }
        let weights = self.weights(experts);
        // The file stands for the statistics in it.
        let merge = self.with(self.calibration.as_ref().map(|_| Calibration::default()));
        merge
            .validate(weights.into_iter())
            .map_err(|source| SelmaError::MergeMethod {
                name: self.name.clone(),
                source,
            })
    }

    /// The merge with its statistics, which are read here.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or holds something else.
    pub(crate) fn loaded(&self) -> Result<Cow<'_, Merge>, SelmaError> {
        let calibration = self.calibration.as_ref().map(Calibration::load);
        Ok(self.with(calibration.transpose()?))
    }

    fn with(&self, calibration: Option<Calibration>) -> Cow<'_, Merge> {
        match calibration {
            None => Cow::Borrowed(&self.merge),
            Some(calibration) => Cow::Owned(Merge {
                calibration: Some(Arc::new(calibration)),
                ..self.merge.clone()
            }),
        }
    }
}

impl From<Method> for MergeMethod {
    fn from(method: Method) -> Self {
        Self {
            name: method.name().to_owned(),
            merge: Merge::new(method),
            calibration: None,
            weights: Vec::new(),
        }
    }
}

impl Serialize for MergeMethod {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::from(self.merge.method) {
            return self.merge.method.serialize(serializer);
        }
        let Value::Object(mut table) =
            serde_json::to_value(&self.merge).map_err(S::Error::custom)?
        else {
            return Err(S::Error::custom("a merge is a table"));
        };
        // TOML has no null.
        table.retain(|_, value| !value.is_null());
        if !self.weights.is_empty() {
            table.insert("weights".to_owned(), Value::from(self.weights.clone()));
        }
        if let Some(path) = &self.calibration {
            let path = serde_json::to_value(path).map_err(S::Error::custom)?;
            table.insert("calibration".to_owned(), path);
        }
        table.insert("name".to_owned(), Value::from(self.name.clone()));
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MergeMethod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut table = match Value::deserialize(deserializer)? {
            Value::Object(table) => table,
            name => {
                let method: Method = serde_json::from_value(name).map_err(D::Error::custom)?;
                return Ok(Self::from(method));
            }
        };
        let name: Option<String> = taken(&mut table, "name").map_err(D::Error::custom)?;
        let weights: Option<Vec<f64>> = taken(&mut table, "weights").map_err(D::Error::custom)?;
        let calibration: Option<PathBuf> =
            taken(&mut table, "calibration").map_err(D::Error::custom)?;
        if !table.contains_key("method") {
            return Err(D::Error::missing_field("method"));
        }
        // Not-a-number comes as null, which would be no value at all.
        if let Some((key, _)) = table.iter().find(|(_, value)| value.is_null()) {
            let error = format!("{key}: expected a finite number or another value");
            return Err(D::Error::custom(error));
        }
        let merge: Merge =
            serde_json::from_value(Value::Object(table)).map_err(D::Error::custom)?;
        Ok(Self {
            name: name.unwrap_or_else(|| merge.method.name().to_owned()),
            merge,
            calibration,
            weights: weights.unwrap_or_default(),
        })
    }
}

/// A key of the table that is no option of the method.
fn taken<T: DeserializeOwned>(
    table: &mut Map<String, Value>,
    key: &str,
) -> Result<Option<T>, String> {
    let value = table.remove(key);
    value
        .map(|value| serde_json::from_value(value).map_err(|error| format!("{key}: {error}")))
        .transpose()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Stage {
        methods: Vec<MergeMethod>,
    }

    fn read(methods: &str) -> Result<Vec<MergeMethod>, String> {
        let stage: Result<Stage, _> = toml::from_str(&format!("methods = [{methods}]"));
        stage
            .map(|stage| stage.methods)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_is_a_method_without_options() {
        let methods = read(r#""mean", { method = "mean" }"#).unwrap();
        assert_eq!(methods, [Method::Mean, Method::Mean].map(MergeMethod::from));
        let json = serde_json::to_string(&methods).unwrap();
        assert_eq!(json, r#"["mean","mean"]"#);
    }

    #[test]
    fn a_table_has_options_and_is_read_back() {
        let methods = read(
            r#"{ method = "peft_ties", density = 0.3, name = "ties-0.3" },
            { method = "svd", rank = 8, weights = [1.0, 0.5] },
            { method = "ssr", ridge = 0.001, calibration = "statistics.safetensors" },
            { method = "mk_della", density = 0.4, epsilon = 0.1, lambda = 0.8, normalize = false, majority = "frequency",
              seed = 3, weights_by_module = [{ module = "up_blocks", adapter = 1, weight = 0.5 }] }"#,
        )
        .unwrap();
        assert_eq!(methods[0].name, "ties-0.3");
        assert_eq!(methods[0].merge.density, Some(0.3));
        assert_eq!(
            (methods[1].name.as_str(), methods[1].merge.rank),
            ("svd", Some(8))
        );
        let file = methods[2].calibration.as_deref();
        assert_eq!(file, Some(Path::new("statistics.safetensors")));
        assert_eq!(methods[2].merge.ridge, Some(0.001));
        assert_eq!(methods[3].merge.weights_by_module.len(), 1);
        for method in &methods {
            method.validate(2).unwrap();
        }
        let stage = Stage { methods };
        let json = serde_json::to_string(&stage).unwrap();
        assert_eq!(serde_json::from_str::<Stage>(&json).unwrap(), stage);
        let text = toml::to_string(&stage).unwrap();
        assert_eq!(toml::from_str::<Stage>(&text).unwrap(), stage);
    }

    #[test]
    fn statistics_are_read_with_the_experts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("statistics.safetensors");
        let method = MergeMethod {
            calibration: Some(path.clone()),
            ..MergeMethod::from(Method::Ssr)
        };
        method.validate(2).unwrap();
        let error = method.loaded().unwrap_err().to_string();
        assert!(error.contains("statistics.safetensors"), "{error}");
        let statistics = Calibration {
            adapters: vec!["of the first".to_owned(), "of the second".to_owned()],
            ..Calibration::default()
        };
        statistics.save(&path).unwrap();
        let merge = method.loaded().unwrap();
        assert_eq!(merge.calibration.as_deref(), Some(&statistics));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, part) in [
            (r#""median""#, "median"),
            ("3", "3"),
            (r#"{ density = 0.3 }"#, "method"),
            (r#"{ method = "peft_ties", densty = 0.3 }"#, "densty"),
            (r#"{ method = "peft_ties", density = "much" }"#, "much"),
            (r#"{ method = "mean", name = 1 }"#, "name"),
            (r#"{ method = "mean", weights = 1.0 }"#, "weights"),
            (r#"{ method = "ssr", calibration = 1 }"#, "calibration"),
            (r#"{ method = "mean", lambda = nan }"#, "lambda"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn options_that_cannot_be_used_are_named() {
        for (text, part) in [
            (r#"{ method = "peft_ties", name = "t" }"#, "density"),
            (
                r#"{ method = "mean", density = 0.3, name = "t" }"#,
                "does not know it",
            ),
            (r#"{ method = "svd", rank = 0, name = "t" }"#, "rank"),
            (
                r#"{ method = "mean", weights = [1.0], name = "t" }"#,
                "one for each skill",
            ),
            (r#"{ method = "ssr", name = "t" }"#, "calibration"),
            (
                r#"{ method = "mean", name = "t", calibration = "x" }"#,
                "does not know it",
            ),
            (
                r#"{ method = "mean", name = "t", weights_by_module = [{ module = "(", weight = 1.0 }] }"#,
                "(",
            ),
            (
                r#"{ method = "mean", name = "t", weights_by_module = [{ module = "x", adapter = 2, weight = 1.0 }] }"#,
                "adapter",
            ),
        ] {
            let method = read(text).unwrap().remove(0);
            let error = method.validate(2).unwrap_err().to_string();
            let named = error.starts_with("recipe setting merge.methods, t: ");
            assert!(named && error.contains(part), "{text}: {error}");
        }
    }
}
