//! Models from the Hugging Face Hub, with the settings that its other programs take from the environment.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use indicatif::HumanBytes;
use selma_hub::{Hub, HubConfig, HubError, HubEvent, ModelId, Proxy, SecretString};

use crate::errors;
use crate::interrupt;
use crate::progress::{Progress, duration};
use crate::terminal::say;

/// Where a model lies that is not on the disk as it is named.
///
/// # Errors
///
/// If the text is no id, or the model can neither be found in the cache nor downloaded.
pub fn locate(model: &Path, variant: Option<&str>) -> anyhow::Result<PathBuf> {
    let shown = model.display();
    let Some(id) = model.to_str().and_then(|text| text.parse::<ModelId>().ok()) else {
        bail!(
            "{shown} does not exist, and is not the id of a model (OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME:FILE)"
        );
    };
    let set = |name: &str| std::env::var(name).ok();
    let mut config = config(&set, std::env::home_dir())?;
    config.proxy = Proxy::try_from_env();
    let hub =
        Hub::new(config.clone()).context("the environment's settings of the Hub cannot be used")?;
    let mut display = Display::default();
    let fetched = hub.fetch(&id, variant, &mut |event| display.receive(&id, event));
    match fetched {
        Ok(model) => {
            display.finish();
            Ok(model.path)
        }
        Err(error) => {
            let advice = advice(&error, &id, &config);
            let text = errors::chain(&error.into());
            Err(anyhow!(
                "{shown} is neither a file nor a folder, and as the id of a model it cannot be had: {text}{advice}"
            ))
        }
    }
}

/// The settings: `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`, and those that go with them.
fn config(
    set: &impl Fn(&str) -> Option<String>,
    home: Option<PathBuf>,
) -> anyhow::Result<HubConfig> {
    let first = |names: &[&str]| {
        let values = names.iter().filter_map(|name| set(name));
        values
            .map(|text| text.trim().to_owned())
            .find(|text| !text.is_empty())
    };
    let folder = |names: &[&str]| {
        let text = first(names)?;
        match (text.strip_prefix("~/"), &home) {
            (Some(rest), Some(home)) => Some(home.join(rest)),
            _ => Some(PathBuf::from(text)),
        }
    };
    let is_on = |names: &[&str]| {
        let value = first(names).map(|text| text.to_uppercase());
        value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.as_str()))
    };
    let base = folder(&["HF_HOME"])
        .or_else(|| Some(folder(&["XDG_CACHE_HOME"])?.join("huggingface")))
        .or_else(|| Some(home.clone()?.join(".cache/huggingface")));
    let cache = folder(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
        .or_else(|| Some(base.clone()?.join("hub")))
        .context("there is no home folder to keep models in; set HF_HOME")?;
    let token = first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
        let file = folder(&["HF_TOKEN_PATH"]).or_else(|| Some(base?.join("token")))?;
        let read = !is_on(&["HF_HUB_DISABLE_IMPLICIT_TOKEN"]);
        let text = read.then(|| std::fs::read_to_string(file).ok()).flatten()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    });
    let mut config = HubConfig::new(cache);
    config.endpoint = first(&["HF_ENDPOINT"]).unwrap_or(config.endpoint);
    config.offline = is_on(&["HF_HUB_OFFLINE"]);
    config.token = token.map(SecretString::from);
    Ok(config)
}

/// What can be done about an error; nothing if it says so itself.
fn advice(error: &HubError, id: &ModelId, config: &HubConfig) -> String {
    let endpoint = config.endpoint.trim_end_matches('/');
    let page = format!("{endpoint}/{}", id.repository);
    let has_token = config.token.is_some();
    match error {
        HubError::NotCached { .. } => {
            "; unset HF_HUB_OFFLINE to download it, or name the cache that has it by HF_HOME or HF_HUB_CACHE".to_owned()
        }
        HubError::Gated { .. } if has_token => {
            format!("; accept its conditions on {page} with the account that the token belongs to")
        }
        HubError::Gated { .. } => format!(
            "; accept its conditions on {page}, and give a token of that account by HF_TOKEN or `hf auth login`"
        ),
        HubError::Denied { .. } if has_token => {
            "; there may be no such model, or the token has expired or has no access to it".to_owned()
        }
        HubError::Denied { .. } => {
            "; there may be no such model, or it is private: then give a token by HF_TOKEN or `hf auth login`".to_owned()
        }
        HubError::NotFound { .. } => format!("; see {page} for its name, revisions and files"),
        HubError::Transport { .. } => {
            "; see that the network is up, and HTTPS_PROXY or HF_ENDPOINT right if you need them; HF_HUB_OFFLINE=1 asks the cache alone".to_owned()
        }
        HubError::NoSpace { .. } => {
            "; make room, or name a folder on a larger disk by HF_HOME; the download goes on where it was".to_owned()
        }
        _ => String::new(),
    }
}

/// A download as the user sees it.
#[derive(Debug, Default)]
struct Display {
    bar: Option<Progress>,
}

impl Display {
    fn receive(&mut self, id: &ModelId, event: HubEvent<'_>) -> ControlFlow<()> {
        match event {
            HubEvent::Chosen {
                commit,
                files,
                bytes,
                missing,
            } if missing > 0 => {
                let short = commit.get(..8).unwrap_or(commit);
                say(format_args!(
                    "{id} at commit {short}: {files} file(s) of {}, {} to download",
                    HumanBytes(bytes),
                    HumanBytes(missing)
                ));
                self.bar = Some(Progress::of_bytes(id.to_string(), bytes));
            }
            HubEvent::Progress {
                file,
                done,
                received,
                ..
            } => {
                if let Some(bar) = &mut self.bar {
                    bar.set_before(done - received);
                    bar.set(done, file);
                }
            }
            HubEvent::Retry { what, reason, wait } => {
                let wait = duration(wait.as_secs_f64());
                say(format_args!("{what}: {reason}; again in {wait}"));
            }
            HubEvent::Shared { file } => {
                say(format_args!(
                    "another process downloads {file}; waiting for it"
                ));
            }
            HubEvent::Unreachable { reason } => {
                say(format_args!("{reason}; using {id} as it is in the cache"));
            }
            _ => {}
        }
        interrupt::flow()
    }

    fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(vars: &[(&str, &str)]) -> HubConfig {
        let set = |name: &str| {
            let found = vars.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        config(&set, Some(PathBuf::from("/no/home"))).unwrap()
    }

    #[test]
    fn the_cache_is_where_the_environment_says() {
        let cache = |vars: &[(&str, &str)]| of(vars).cache;
        assert_eq!(cache(&[]), Path::new("/no/home/.cache/huggingface/hub"));
        let xdg = ("XDG_CACHE_HOME", "/x");
        assert_eq!(cache(&[xdg]), Path::new("/x/huggingface/hub"));
        let hf = ("HF_HOME", "~/hf");
        assert_eq!(cache(&[xdg, hf]), Path::new("/no/home/hf/hub"));
        assert_eq!(cache(&[hf, ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(
            cache(&[("HF_HUB_CACHE", " ")]),
            Path::new("/no/home/.cache/huggingface/hub")
        );
    }

    #[test]
    fn offline_endpoint_and_token() {
        let plain = of(&[]);
        assert_eq!(
            (plain.endpoint.as_str(), plain.offline),
            ("https://huggingface.co", false)
        );
        assert!(plain.token.is_none());
        for on in ["1", "true", "YES"] {
            assert!(of(&[("HF_HUB_OFFLINE", on)]).offline);
        }
        assert!(!of(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(
            of(&[("HF_ENDPOINT", "http://mirror")]).endpoint,
            "http://mirror"
        );
        assert!(of(&[("HF_TOKEN", "hf_x")]).token.is_some());

        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_y\n").unwrap();
        let base = ("HF_HOME", home.path().to_str().unwrap());
        assert!(of(&[base]).token.is_some());
        let without = of(&[base, ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]);
        assert!(without.token.is_none());
    }
}
