//! The form of a JSON answer: [`JsonSchema`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::LlmError;

/// References that may follow one another, and levels a value may have, so that a schema that contains itself ends.
const MAX_DEPTH: usize = 64;

/// Keywords that say nothing about a value, or nothing that must hold (`format`). Schemas made from Rust types have them.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$id",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "format",
];

/// A JSON schema that an answer shall follow, by the name under which a server is told of it.
///
/// Many servers accept a schema and ignore it, so the answer is checked here as well. That is why a schema may say only
/// what is checked: `type`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`, `properties`, `required`, `additionalProperties`,
/// `items`, the minima and maxima of numbers, lengths, items and properties, and `$ref` to `#/$defs/..`: the keywords of
/// OpenAI's structured outputs but `pattern`. Any other is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JsonSchema {
    /// Name of the form; OpenAI wants letters, digits, `_` and `-`.
    pub name: String,
    /// The schema.
    pub schema: Value,
    /// Whether the server is asked to let nothing else through. Default true. OpenAI then wants every object to have
    /// `additionalProperties: false` and all its properties in `required`.
    pub strict: bool,
}

/// Where a value does not follow its schema, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub(crate) struct Violation {
    /// JSON path of the value: `$.objects[2].name`.
    path: String,
    reason: String,
}

impl JsonSchema {
    /// A strict schema.
    pub fn new(name: impl Into<String>, schema: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            schema: schema.into(),
            strict: true,
        }
    }

    /// Checks that the schema says only what can be checked.
    ///
    /// # Errors
    /// [`LlmError::Schema`] names the first place and keyword that cannot be used.
    pub fn validate(&self) -> Result<(), LlmError> {
        validate(&self.schema, &self.schema, "#").map_err(|Violation { path, reason }| {
            LlmError::Schema {
                name: self.name.clone(),
                path,
                reason,
            }
        })
    }

    /// Checks a value.
    pub(crate) fn check(&self, value: &Value) -> Result<(), Violation> {
        check(&self.schema, &self.schema, value, "$", MAX_DEPTH)
    }
}

fn wrong(path: &str, reason: impl Into<String>) -> Violation {
    Violation {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn validate(root: &Value, schema: &Value, path: &str) -> Result<(), Violation> {
    let fields = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(fields) => fields,
        other => return Err(wrong(path, format!("expected a schema, found {other}"))),
    };
    for (key, value) in fields {
        let here = format!("{path}/{key}");
        let good = match key.as_str() {
            "$ref" => {
                let target = value.as_str().and_then(|target| resolve(root, target));
                if target.is_none() {
                    let reason = format!("{value} leads nowhere in this schema");
                    return Err(wrong(&here, reason));
                }
                true
            }
            "type" => types(value).is_some_and(|names| names.iter().all(|name| is_type(name))),
            "enum" => value.is_array(),
            "required" => texts(value).is_some(),
            "properties" | "$defs" | "definitions" => match value {
                Value::Object(schemas) => {
                    for (name, schema) in schemas {
                        validate(root, schema, &format!("{here}/{name}"))?;
                    }
                    true
                }
                _ => false,
            },
            "items" | "additionalProperties" => {
                validate(root, value, &here)?;
                true
            }
            "anyOf" | "oneOf" | "allOf" => match value {
                Value::Array(schemas) => {
                    for (position, schema) in schemas.iter().enumerate() {
                        validate(root, schema, &format!("{here}/{position}"))?;
                    }
                    !schemas.is_empty()
                }
                _ => false,
            },
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
            | "maxProperties" => value.is_u64(),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "const" => true,
            other if ANNOTATIONS.contains(&other) => true,
            _ => return Err(wrong(&here, "this keyword is not supported")),
        };
        if !good {
            return Err(wrong(&here, format!("cannot be {value}")));
        }
    }
    Ok(())
}

/// Checks the value at `path`; `depth` bounds how deep values and references may go.
fn check(
    root: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    depth: usize,
) -> Result<(), Violation> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(wrong(path, "too many levels or references"));
    };
    let fields = match schema {
        Value::Object(fields) => fields,
        Value::Bool(false) => return Err(wrong(path, "nothing is allowed here")),
        _ => return Ok(()),
    };
    for (key, rule) in fields {
        match key.as_str() {
            "$ref" => {
                let target = rule.as_str().and_then(|target| resolve(root, target));
                check(root, target.unwrap_or(&Value::Null), value, path, depth)?;
            }
            "type" => {
                let names = types(rule).unwrap_or_default();
                if !names.iter().any(|name| has_type(value, name)) {
                    let reason = format!("expected {}, found {}", names.join(" or "), kind(value));
                    return Err(wrong(path, reason));
                }
            }
            "enum" => {
                let known = rule.as_array().map(Vec::as_slice).unwrap_or_default();
                if !known.iter().any(|known| same(known, value)) {
                    return Err(wrong(
                        path,
                        format!("expected one of {rule}, found {value}"),
                    ));
                }
            }
            "const" if !same(rule, value) => {
                return Err(wrong(path, format!("expected {rule}, found {value}")));
            }
            "allOf" => {
                for schema in rule.as_array().into_iter().flatten() {
                    check(root, schema, value, path, depth)?;
                }
            }
            "anyOf" | "oneOf" => {
                let schemas = rule.as_array().map(Vec::as_slice).unwrap_or_default();
                let results = schemas
                    .iter()
                    .map(|schema| check(root, schema, value, path, depth));
                let results: Vec<_> = results.collect();
                let fitting = results.iter().filter(|result| result.is_ok()).count();
                if fitting == 0 {
                    // What the first alternative misses is the best hint there is.
                    return results.into_iter().next().unwrap_or(Ok(()));
                }
                if key == "oneOf" && fitting > 1 {
                    return Err(wrong(path, format!("fits {fitting} forms instead of one")));
                }
            }
            _ => check_keyword(key, rule, value, path)?,
        }
    }
    match value {
        Value::Object(object) => check_object(root, fields, object, path, depth),
        Value::Array(items) => match fields.get("items") {
            Some(schema) => items.iter().enumerate().try_for_each(|(position, item)| {
                check(root, schema, item, &format!("{path}[{position}]"), depth)
            }),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

fn check_object(
    root: &Value,
    fields: &Map<String, Value>,
    object: &Map<String, Value>,
    path: &str,
    depth: usize,
) -> Result<(), Violation> {
    let required = fields.get("required").and_then(texts).unwrap_or_default();
    if let Some(missing) = required.iter().find(|name| !object.contains_key(**name)) {
        return Err(wrong(path, format!("field `{missing}` is missing")));
    }
    let properties = fields.get("properties").and_then(Value::as_object);
    for (name, value) in object {
        let here = format!("{path}.{name}");
        match properties.and_then(|properties| properties.get(name)) {
            Some(schema) => check(root, schema, value, &here, depth)?,
            None => match fields.get("additionalProperties") {
                Some(Value::Bool(false)) => {
                    return Err(wrong(path, format!("unknown field `{name}`")));
                }
                Some(schema) => check(root, schema, value, &here, depth)?,
                None => {}
            },
        }
    }
    Ok(())
}

/// The keywords with a bound, each for values of one type.
fn check_keyword(key: &str, rule: &Value, value: &Value, path: &str) -> Result<(), Violation> {
    let (found, what) = match (key, value) {
        ("minItems" | "maxItems", Value::Array(items)) => (items.len() as f64, "items"),
        ("minLength" | "maxLength", Value::String(text)) => {
            (text.chars().count() as f64, "characters")
        }
        ("minProperties" | "maxProperties", Value::Object(fields)) => {
            (fields.len() as f64, "fields")
        }
        ("minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum", Value::Number(n)) => {
            (n.as_f64().unwrap_or(f64::NAN), "")
        }
        _ => return Ok(()),
    };
    let bound = rule.as_f64().unwrap_or(f64::NAN);
    let (good, words) = match key {
        "exclusiveMinimum" => (found > bound, "more than"),
        "exclusiveMaximum" => (found < bound, "less than"),
        _ if key.starts_with("min") => (found >= bound, "at least"),
        _ => (found <= bound, "at most"),
    };
    if good {
        return Ok(());
    }
    let what = if what.is_empty() {
        String::new()
    } else {
        format!(" {what}")
    };
    let reason = format!("expected {words} {bound}{what}, found {found}");
    Err(wrong(path, reason))
}

/// The schema that a reference within the document leads to; only where [`validate`] has been.
fn resolve<'a>(root: &'a Value, target: &str) -> Option<&'a Value> {
    let pointer = target.strip_prefix('#')?;
    let places = ["/$defs/", "/definitions/", "/properties/"];
    if !pointer.is_empty() && !places.iter().any(|place| pointer.starts_with(place)) {
        return None;
    }
    let schema = root.pointer(pointer)?;
    (schema.is_object() || schema.is_boolean()).then_some(schema)
}

/// The names that `type` lists.
fn types(rule: &Value) -> Option<Vec<&str>> {
    match rule {
        Value::String(name) => Some(vec![name]),
        other => texts(other).filter(|names| !names.is_empty()),
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

fn is_type(name: &str) -> bool {
    let known = [
        "null", "boolean", "integer", "number", "string", "array", "object",
    ];
    known.contains(&name)
}

fn has_type(value: &Value, name: &str) -> bool {
    match value {
        Value::Number(number) if name == "integer" => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        _ => kind(value) == name,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equality, for which 1 and 1.0 are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests;
