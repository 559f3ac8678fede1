//! What [`OpenAiConfig`] accepts and refuses.

use selma_llm::{Azure, OpenAiClient, OpenAiConfig, Price};

#[test]
fn settings_are_checked() {
    let good = OpenAiConfig::new("https://example.org/v1", "m");
    good.validate().unwrap();
    let mut cases = Vec::new();
    for url in [
        "",
        "example.org",
        "ftp://example.org",
        "https://",
        "http://user:pw@example.org",
        "http://h/v1?key=1",
    ] {
        let mut config = good.clone();
        config.base_url = url.to_owned();
        cases.push((config, "base_url"));
    }
    let mut config = good.clone();
    config.model = " ".to_owned();
    cases.push((config, "model"));
    let mut config = good.clone();
    config.timeout_s = 0.0;
    cases.push((config, "timeout_s"));
    let mut config = good.clone();
    config.backoff_s = f64::NAN;
    cases.push((config, "backoff_s"));
    for proxy in ["no proxy", "http://user:pw@example.org"] {
        let mut config = good.clone();
        config.proxy = Some(proxy.to_owned());
        cases.push((config, "proxy"));
    }
    let mut set = |field: &'static str, change: &dyn Fn(&mut OpenAiConfig)| {
        let mut config = good.clone();
        change(&mut config);
        cases.push((config, field));
    };
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        set("limits.requests_per_minute", &|config| {
            config.limits.requests_per_minute = Some(rate);
        });
        set("limits.tokens_per_minute", &|config| {
            config.limits.tokens_per_minute = Some(rate);
        });
    }
    set("budget.cost", &|config| config.budget.cost = Some(1.0));
    set("budget.cost", &|config| {
        config.budget.cost = Some(f64::NAN);
        config.price = Some(Price::default());
    });
    set("price.output_per_million", &|config| {
        config.price = Some(Price {
            output_per_million: -1.0,
            ..Price::default()
        });
    });
    set("prompts_per_request", &|config| {
        config.prompts_per_request = 0;
    });
    set("in_flight", &|config| config.in_flight = 0);
    set("max_answer_bytes", &|config| config.max_answer_bytes = 0);
    set("omit_fields", &|config| {
        config.omit_fields = vec!["messages".to_owned()];
    });
    set("token_limit_field", &|config| {
        config.token_limit_field = "messages".to_owned();
    });
    set("api_key_file", &|config| {
        config.api_key_env = Some("KEY".to_owned());
        config.api_key_file = Some("key".into());
    });
    for (deployment, api_version, field) in [
        ("", "1", "azure.deployment"),
        ("a/b", "1", "azure.deployment"),
        ("a", "1&key=1", "azure.api_version"),
    ] {
        set(field, &|config| {
            config.azure = Some(Azure {
                deployment: deployment.to_owned(),
                api_version: api_version.to_owned(),
            });
        });
    }
    for name in ["temperature", "stream", "prompt", "limit"] {
        set("extra_body", &|config| {
            config.token_limit_field = "limit".to_owned();
            config.extra_body.insert(name.to_owned(), 1.into());
        });
    }
    for (name, value) in [
        ("Authorization", "pw"),
        ("X-API-Key", "pw"),
        ("X-Auth-Token", "pw"),
        ("Content-Type", "a"),
        ("a b", "c"),
        ("", "c"),
        ("x-title", "pw\n"),
    ] {
        set("extra_headers", &|config| {
            config.extra_headers = [(name.to_owned(), value.to_owned())].into();
        });
    }
    for name in ["", "a b", "Host"] {
        set("api_key_header", &|config| {
            config.api_key_header = Some(name.to_owned());
        });
    }
    for (config, field) in cases {
        let error = OpenAiClient::new(config).unwrap_err().to_string();
        assert!(error.contains(&format!("setting `{field}`")), "{error}");
        assert!(!error.contains("pw") && !error.contains("key=1"), "{error}");
    }
    let toml = "base_url = \"http://h/v1\"\nmodel = \"m\"\n";
    let config: OpenAiConfig = toml::from_str(toml).unwrap();
    assert_eq!(config, OpenAiConfig::new("http://h/v1", "m"));
    for unknown in [
        "api_key = \"x\"",
        "[limits]\nper_minute = 1",
        "[budget]\nmoney = 1",
        "[price]\ninput_per_million = 1.0\noutput_per_million = 1.0\ncurrency = \"EUR\"",
        "[azure]\ndeployment = \"a\"\napi_version = \"1\"\nkey = \"x\"",
    ] {
        let error = toml::from_str::<OpenAiConfig>(&format!("{toml}{unknown}")).unwrap_err();
        assert!(error.message().contains("unknown field"), "{error}");
    }
}

#[test]
fn every_setting_survives_a_recipe() {
    let toml = r#"
base_url = "https://h/v1"
model = "m"
endpoint = "completions"
api_key_file = "/run/secrets/key"
api_key_header = "x-api-key"
token_limit_field = "max_completion_tokens"
omit_fields = ["temperature", "top_p"]
prompts_per_request = 20
in_flight = 16
max_answer_bytes = 1000000

[limits]
requests_per_minute = 500.0
tokens_per_minute = 200000.0

[budget]
tokens = 1000000
cost = 2.5

[price]
input_per_million = 0.15
output_per_million = 0.6

[azure]
deployment = "d"
api_version = "2024-10-21"

[extra_headers]
X-Title = "SELMA"

[extra_body]
min_p = 0.1
chat_template_kwargs = { enable_thinking = false }
"#;
    let config: OpenAiConfig = toml::from_str(toml).unwrap();
    config.validate().unwrap();
    assert_eq!(config.limits.requests_per_minute, Some(500.0));
    assert_eq!(
        config.extra_body["chat_template_kwargs"]["enable_thinking"],
        false
    );
    let written = toml::to_string(&config).unwrap();
    assert_eq!(toml::from_str::<OpenAiConfig>(&written).unwrap(), config);
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<OpenAiConfig>(&json).unwrap(), config);
}

#[test]
fn the_settings_of_the_page_are_valid() {
    let page = include_str!("../README.md");
    let block = page
        .split("```toml\n")
        .find(|block| block.starts_with("base_url"))
        .and_then(|block| block.split("```").next())
        .unwrap();
    let config: OpenAiConfig = toml::from_str(block).unwrap();
    config.validate().unwrap();
    assert_eq!(config.limits.requests_per_minute, Some(500.0));
}
