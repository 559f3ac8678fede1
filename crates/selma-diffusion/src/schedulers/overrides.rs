//! Single fields of a configuration, set by their names.

use serde::de::value::Error as NoValue;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde_json::Value;

use super::{SchedulerConfig, SchedulerError};

impl SchedulerConfig {
    /// The names of all fields, as in `scheduler_config.json`.
    #[must_use]
    pub fn fields() -> &'static [&'static str] {
        let mut fields: &'static [&'static str] = &[];
        // It gives no value, only what it is asked for.
        let _ = Self::deserialize(FieldNames(&mut fields));
        fields
    }

    /// The configuration with another value in one field; `null` takes the field out, so that the scheduler's default counts.
    ///
    /// ```
    /// use selma_diffusion::schedulers::{SchedulerConfig, TimestepSpacing};
    ///
    /// let config = SchedulerConfig::default().with("timestep_spacing", &"trailing".into())?;
    /// assert_eq!(config.timestep_spacing, Some(TimestepSpacing::Trailing));
    /// # Ok::<(), selma_diffusion::schedulers::SchedulerError>(())
    /// ```
    ///
    /// # Errors
    /// [`SchedulerError::UnknownField`] for another name, and [`SchedulerError::FieldValue`] for a value of the wrong type or name. Whether a scheduler supports the
    /// value shows when it is built.
    pub fn with(&self, field: &str, value: &Value) -> Result<Self, SchedulerError> {
        let Some(&field) = Self::fields().iter().find(|known| **known == field) else {
            return Err(SchedulerError::UnknownField {
                field: field.to_owned(),
                expected: Self::fields().join(", "),
            });
        };
        let wrong = |source| SchedulerError::FieldValue {
            field,
            found: value.to_string(),
            source,
        };
        let mut all = serde_json::to_value(self).map_err(wrong)?;
        if let Some(all) = all.as_object_mut() {
            all.insert(field.to_owned(), value.clone());
        }
        serde_json::from_value(all).map_err(wrong)
    }
}

/// Remembers the names of the fields that a struct asks for.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = NoValue;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NoValue> {
        Err(NoValue::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, NoValue> {
        *self.0 = fields;
        Err(NoValue::custom("names only"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple tuple_struct map enum
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schedulers::{BetaSchedule, PredictionType};

    #[test]
    fn every_field_can_be_set_by_its_name() {
        let base = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        for (field, value) in [
            ("steps_offset", json!(0)),
            ("beta_schedule", json!("linear")),
            ("prediction_type", json!("v_prediction")),
            ("use_exponential_sigmas", json!(true)),
            ("trained_betas", json!([0.1, 0.2])),
            ("_class_name", json!("DDIMScheduler")),
        ] {
            let changed = base.with(field, &value).unwrap();
            let json = serde_json::to_value(&changed).unwrap();
            assert_eq!(json.get(field), Some(&value));
            assert_ne!(changed, base);
        }
        let removed = base.with("beta_schedule", &Value::Null).unwrap();
        assert_eq!(
            (base.beta_schedule, removed.beta_schedule),
            (Some(BetaSchedule::ScaledLinear), None)
        );
    }

    #[test]
    fn what_cannot_be_set_is_explained() {
        let base = SchedulerConfig::default();
        let error = base.with("use_karras", &json!(true)).unwrap_err();
        assert!(error.to_string().contains("use_karras_sigmas"), "{error}");
        let error = base.with("steps_offset", &json!("one")).unwrap_err();
        assert!(error.to_string().contains("steps_offset"), "{error}");
    }
}
