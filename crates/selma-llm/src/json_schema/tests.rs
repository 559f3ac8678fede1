use serde_json::json;

use super::*;

fn question() -> JsonSchema {
    JsonSchema::new(
        "questions",
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Questions",
            "type": "object",
            "properties": {
                "questions": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "#/$defs/question"}},
                "note": {"type": ["string", "null"], "maxLength": 5},
            },
            "required": ["questions"],
            "additionalProperties": false,
            "$defs": {"question": {
                "type": "object",
                "properties": {
                    "id": {"type": "integer", "minimum": 1, "exclusiveMaximum": 10, "format": "uint32"},
                    "kind": {"enum": ["object", "colour", 1]},
                    "parents": {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
                },
                "required": ["id", "kind"],
                "additionalProperties": {"type": "boolean"},
            }},
        }),
    )
}

#[test]
fn what_follows_the_schema_passes() {
    question().validate().unwrap();
    for value in [
        json!({"questions": [{"id": 1, "kind": "object"}]}),
        json!({"questions": [{"id": 2.0, "kind": 1.0, "parents": [1], "sure": true}], "note": null}),
        json!({"questions": [{"id": 9, "kind": "colour", "parents": null}], "note": "fünf!"}),
    ] {
        question()
            .check(&value)
            .unwrap_or_else(|error| panic!("{value}: {error}"));
    }
}

#[test]
fn what_does_not_is_named_with_its_place() {
    let one = |field: &str, value: Value| {
        let mut question = json!({"id": 1, "kind": "object"});
        question[field] = value;
        json!({"questions": [{"id": 2, "kind": "object"}, question]})
    };
    for (value, expected) in [
        (json!([]), "$: expected object, found array"),
        (json!({}), "$: field `questions` is missing"),
        (
            json!({"questions": []}),
            "$.questions: expected at least 1 items, found 0",
        ),
        (
            json!({"questions": [1, 2, 3, 4]}),
            "$.questions: expected at most 3 items, found 4",
        ),
        (
            json!({"questions": [1]}),
            "$.questions[0]: expected object, found number",
        ),
        (
            json!({"questions": [{"id": 1, "kind": "object"}], "x": 1}),
            "$: unknown field `x`",
        ),
        (
            json!({"questions": [{"id": 1, "kind": "object"}], "note": "sechs!"}),
            "$.note: expected at most 5 characters, found 6",
        ),
        (
            json!({"questions": [{"id": 1, "kind": "object"}], "note": 1}),
            "$.note: expected string or null, found number",
        ),
        (
            one("id", json!(0)),
            "$.questions[1].id: expected at least 1, found 0",
        ),
        (
            one("id", json!(10)),
            "$.questions[1].id: expected less than 10, found 10",
        ),
        (
            one("id", json!(1.5)),
            "$.questions[1].id: expected integer, found number",
        ),
        (
            one("kind", json!("size")),
            r#"$.questions[1].kind: expected one of ["object","colour",1], found "size""#,
        ),
        (
            one("parents", json!(["a"])),
            "$.questions[1].parents[0]: expected integer, found string",
        ),
        (
            one("sure", json!(1)),
            "$.questions[1].sure: expected boolean, found number",
        ),
    ] {
        let error = question().check(&value).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn combinations() {
    let check = |schema: Value, value: Value| JsonSchema::new("x", schema).check(&value).is_ok();
    let one = json!({"oneOf": [{"type": "integer"}, {"minimum": 5}]});
    assert!(check(one.clone(), json!(3)) && check(one.clone(), json!(5.5)));
    assert!(!check(one.clone(), json!(7)) && !check(one, json!(0.5)));
    let all = json!({"allOf": [{"minimum": 2}, {"maximum": 4}]});
    assert!(check(all.clone(), json!(3)) && !check(all, json!(5)));
    assert!(check(json!({"const": 1}), json!(1.0)) && !check(json!({"const": "a"}), json!("b")));
    assert!(check(json!(true), json!("anything")) && !check(json!(false), json!(0)));
    let one = json!({"minProperties": 1, "maxProperties": 1});
    assert!(!check(one.clone(), json!({})) && check(one.clone(), json!({"a": 1})));
    assert!(!check(one, json!({"a": 1, "b": 2})));
}

#[test]
fn a_schema_that_contains_itself_ends() {
    let tree = JsonSchema::new(
        "tree",
        json!({"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": false}),
    );
    tree.validate().unwrap();
    assert!(tree.check(&json!({"next": {"next": {}}})).is_ok());
    let error = tree.check(&json!({"next": {"x": {}}})).unwrap_err();
    assert_eq!(error.to_string(), "$.next: unknown field `x`");
    let endless = JsonSchema::new("endless", json!({"$ref": "#"}));
    let error = endless.check(&json!(1)).unwrap_err();
    assert_eq!(error.to_string(), "$: too many levels or references");
}

#[test]
fn what_cannot_be_checked_is_refused() {
    for (schema, expected) in [
        (json!(7), "#: expected a schema, found 7"),
        (
            json!({"pattern": "a+"}),
            "#/pattern: this keyword is not supported",
        ),
        (
            json!({"items": {"uniqueItems": true}}),
            "#/items/uniqueItems: this keyword is not supported",
        ),
        (
            json!({"properties": {"a": {"type": "text"}}}),
            "#/properties/a/type: cannot be \"text\"",
        ),
        (json!({"type": []}), "#/type: cannot be []"),
        (json!({"required": "a"}), "#/required: cannot be \"a\""),
        (json!({"minItems": -1}), "#/minItems: cannot be -1"),
        (json!({"maximum": "1"}), "#/maximum: cannot be \"1\""),
        (json!({"anyOf": []}), "#/anyOf: cannot be []"),
        (json!({"properties": []}), "#/properties: cannot be []"),
        (
            json!({"$ref": "#/$defs/a"}),
            "#/$ref: \"#/$defs/a\" leads nowhere in this schema",
        ),
        (
            json!({"$ref": "#/examples/0", "examples": [{"pattern": "a"}]}),
            "#/$ref: \"#/examples/0\" leads nowhere in this schema",
        ),
        (
            json!({"$defs": {"a": {"if": {}}}}),
            "#/$defs/a/if: this keyword is not supported",
        ),
        (
            json!({"items": [{"type": "string"}]}),
            "#/items: expected a schema, found [{\"type\":\"string\"}]",
        ),
    ] {
        let error = JsonSchema::new("form", schema).validate().unwrap_err();
        assert_eq!(error.to_string(), format!("schema 'form', {expected}"));
    }
}
