//! JSON schemas: the official test suite, sampled texts, and what is refused.

use std::path::Path;

use grammar::{GrammarError, Spec};
use serde_json::{Value, json};

use crate::vocabulary::{accepts, compile};

/// A schema of the suite with instances.
struct Case {
    name: String,
    schema: Value,
    instances: Vec<(Value, bool)>,
}

fn suite() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/json-schema-test-suite");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut cases = Vec::new();
    for path in files {
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        for case in file.as_array().unwrap() {
            let instance = |test: &Value| (test["data"].clone(), test["valid"].as_bool().unwrap());
            cases.push(Case {
                name: format!("{stem}: {}", case["description"].as_str().unwrap()),
                schema: case["schema"].clone(),
                instances: case["tests"].as_array().unwrap().iter().map(instance).collect(),
            });
        }
    }
    cases
}

#[test]
fn what_compiles_accepts_no_instance_that_the_suite_calls_invalid() {
    let mut compiled = 0;
    for Case { name, schema, instances } in suite() {
        let Ok(grammar) = compile(&Spec::JsonSchema(schema.clone())) else { continue };
        compiled += 1;
        for (instance, valid) in instances {
            let text = instance.to_string();
            assert!(valid || !accepts(&grammar, &text), "{name}: {schema} accepts {text}");
        }
    }
    // Or the test would not notice if everything were refused.
    assert!(compiled >= 170, "{compiled} schemas");
}

#[cfg(feature = "check-schemas")]
mod validated {
    use super::*;
    use crate::vocabulary::sample;

    /// Texts sampled for each schema.
    const NUM_SAMPLES: u64 = 12;
    /// Most tokens of one.
    const MAX_TOKENS: usize = 240;

    /// Whether the schema takes the instance; formats are assertions.
    fn is_valid(schema: &Value, instance: &Value) -> bool {
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(schema);
        validator.expect("a schema of the suite").is_valid(instance)
    }

    #[test]
    fn what_compiles_yields_valid_instances_only() {
        let mut num_samples = 0;
        for Case { name, schema, instances } in suite() {
            let Ok(grammar) = compile(&Spec::JsonSchema(schema.clone())) else { continue };
            for (instance, _) in instances {
                let text = instance.to_string();
                // That formats are assertions is an option of the validator, not of the suite.
                let valid = is_valid(&schema, &instance);
                assert!(valid || !accepts(&grammar, &text), "{name}: {schema} accepts {text}");
            }
            for seed in 0..NUM_SAMPLES {
                let Some(text) = sample(&grammar, seed, MAX_TOKENS) else { continue };
                num_samples += 1;
                let instance: Value = match serde_json::from_str(&text) {
                    Ok(instance) => instance,
                    // JSON has numbers of any size, of which this parser knows those that a double holds.
                    Err(error) if error.to_string().starts_with("number out of range") => continue,
                    Err(error) => panic!("{name}: {schema} yields {text:?}: {error}"),
                };
                assert!(is_valid(&schema, &instance), "{name}: {schema} yields {text:?}");
            }
        }
        // Or the test would not notice if nothing were sampled.
        assert!(num_samples >= 2000, "{num_samples} samples");
    }
}

/// Schemas as programs send them.
#[test]
fn usual_schemas_take_what_they_should() {
    let check = |schema: Value, good: &[&str], bad: &[&str]| {
        let grammar =
            compile(&Spec::JsonSchema(schema.clone())).unwrap_or_else(|error| panic!("{schema}: {error}"));
        good.iter().for_each(|text| assert!(accepts(&grammar, text), "{schema} refuses {text}"));
        bad.iter().for_each(|text| assert!(!accepts(&grammar, text), "{schema} accepts {text}"));
    };
    let person = json!({
        "$defs": {"Colour": {"enum": ["red", "green"], "title": "Colour", "type": "string"}},
        "properties": {
            "name": {"title": "Name", "type": "string"},
            "age": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}], "default": null},
            "colours": {"items": {"$ref": "#/$defs/Colour"}, "type": "array", "maxItems": 2}
        },
        "required": ["name", "colours"], "additionalProperties": false, "title": "Person", "type": "object"
    });
    check(
        person,
        &[
            "{\"name\":\"Ann\",\"age\":3,\"colours\":[]}",
            "{\"name\": \"Ann\", \"colours\": [\"red\", \"green\"]}",
            "{\n  \"name\": \"A\\nn\",\n  \"colours\": [\n    \"red\"\n  ]\n}",
        ],
        &[
            "{\"name\":\"Ann\"}",
            "{\"name\":\"Ann\",\"age\":-3,\"colours\":[]}",
            "{\"name\":\"Ann\",\"colours\":[\"blue\"]}",
            "{\"name\":\"Ann\",\"colours\":[],\"x\":1}",
            "{\"name\":     \"Ann\",\"colours\":[]}",
        ],
    );
    let tree = json!({
        "$ref": "#/definitions/a~1b",
        "definitions": {"a/b": {
            "type": "object", "properties": {"child": {"$ref": "#/definitions/a~1b"}}, "additionalProperties": false
        }}
    });
    check(tree, &["{}", "{\"child\":{\"child\":{}}}"], &["{\"child\":1}"]);
    let shapes = json!({"oneOf": [
        {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"], "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"], "additionalProperties": false}
    ]});
    check(shapes, &["{\"kind\":\"a\"}", "{\"kind\":\"b\"}"], &["{\"kind\":\"c\"}", "{}"]);
    check(json!({"oneOf": [{"const": 1}, {"const": 2, "title": "two"}]}), &["1", "2"], &["3"]);
    let dates = json!({"type": "string", "format": "date"});
    check(
        dates,
        &["\"2024-02-29\"", "\"1999-12-31\""],
        &["\"2023-02-29\"", "\"1900-02-29\"", "\"2023-04-31\""],
    );
    let extra = json!({"type": "object", "properties": {"foo": {"type": "null"}}, "additionalProperties": {"type": "integer"}});
    check(extra, &["{\"foo\":null,\"bar\":1}"], &["{\"foo\":1}", "{\"\\u0066oo\":1}"]);
    check(json!(true), &["1", "{\"a\":[]}"], &["x"]);
    check(json!({"type": "string", "pattern": "^a.$"}), &["\"ab\""], &["\"a\\r\"", "\"abc\""]);
    check(json!({"type": "integer", "minimum": 1, "exclusiveMinimum": true}), &["2"], &["1"]);
    check(
        json!({"type": "array", "items": [{"type": "null"}], "additionalItems": false}),
        &["[null]"],
        &["[1]", "[null,1]"],
    );
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name() {
    let check = |schema: Value, part: &str| match compile(&Spec::JsonSchema(schema.clone())) {
        Err(error) => assert!(error.to_string().contains(part), "{schema}: {error}"),
        Ok(_) => panic!("{schema} was compiled"),
    };
    for keyword in ["not", "contains", "propertyNames", "dependentSchemas", "unevaluatedProperties"] {
        check(json!({keyword: {}}), keyword);
    }
    check(json!({"properties": {"a": {"format": "regex"}}}), "schema/properties/a/format");
    check(json!({"format": "iri"}), "a format that can be enforced");
    check(json!({"if": {}, "then": {}}), "\"if\"");
    check(json!({"type": "array", "uniqueItems": true}), "uniqueItems");
    check(json!({"minProperties": 3}), "minProperties");
    check(json!({"$ref": "https://example.com/a"}), "a reference inside the schema");
    check(json!({"$ref": "#/$defs/a"}), "something that exists");
    check(json!({"$ref": "#"}), "lead to themselves");
    check(
        json!({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        "lead to themselves",
    );
    check(json!({"pattern": "(?=a)b"}), "look-around");
    check(json!({"const": 1e300}), "2^53");
    check(json!({"type": "text"}), "a type");
    check(json!({"minLength": -1}), "a whole number");
    check(json!(false), "found false");
    check(json!({"type": "object", "properties": {"a": false}, "required": ["a"]}), "unsatisfiable");
    check(json!(5), "an object or a boolean");
}

#[test]
fn options_of_the_library_are_not_a_schema_s_to_set() {
    let schema = json!({"type": "object", "x-guidance": {"whitespace_pattern": "x+", "lenient": true}, "properties": {"a": {}}});
    let grammar = compile(&Spec::JsonSchema(schema)).unwrap();
    assert!(accepts(&grammar, "{ \"a\": 1}") && !accepts(&grammar, "{xx\"a\":1}"));
    let lenient = json!({"format": "regex", "x-guidance": {"lenient": true}});
    assert!(matches!(compile(&Spec::JsonSchema(lenient)), Err(GrammarError::Schema { .. })));
}

#[test]
fn hostile_schemas_are_refused() {
    let wide: Value = (0..20_000).map(|_| json!({})).collect();
    let mut deep = json!({"type": "null"});
    for _ in 0..100 {
        deep = json!({"items": deep});
    }
    let mut product = json!({"type": "object"});
    product["allOf"] = (0..12)
        .map(|i| json!({"anyOf": (0..12).map(|j| json!({"properties": {format!("p{i}"): {"const": j}}, "required": [format!("p{i}")]})).collect::<Vec<_>>()}))
        .collect();
    let long = json!({"enum": ["x".repeat(300_000)]});
    for schema in [json!({"anyOf": wide}), deep, product, long] {
        assert!(compile(&Spec::JsonSchema(schema.clone())).is_err(), "{:.80}", schema.to_string());
    }
}
