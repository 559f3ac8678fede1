//! What [`OpenAiConfig`] accepts and refuses.

use selma_llm::{OpenAiClient, OpenAiConfig};

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
    for (config, field) in cases {
        let error = OpenAiClient::new(config).unwrap_err().to_string();
        assert!(error.contains(&format!("setting `{field}`")), "{error}");
        assert!(!error.contains("pw") && !error.contains("key=1"), "{error}");
    }
    let toml = "base_url = \"http://h/v1\"\nmodel = \"m\"\n";
    let config: OpenAiConfig = toml::from_str(toml).unwrap();
    assert_eq!(config, OpenAiConfig::new("http://h/v1", "m"));
    assert!(toml::from_str::<OpenAiConfig>(&format!("{toml}api_key = \"x\"")).is_err());
}
