//! Who answers questions about pictures.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use burn::tensor::Device;
use clap::ArgGroup;
use selma::NamedVqa;
use selma_diffusion::device;
use selma_eval::{CachedVqa, ChatPrompt, ChatVqa, EvalError, PictureFormat, Vqa};
use selma_llm::{OpenAiClient, OpenAiConfig};
use selma_mini::OracleVqa;

use crate::commands::server;
use crate::interrupt;
use crate::progress::Progress;
use crate::terminal::say;

/// The group of what may compute in this program, and so on a device: the judge, and what else a command has.
pub const COMPUTING: &str = "computing";

/// Who answers the questions, and how he is asked.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new(COMPUTING).multiple(true))]
pub struct JudgeArgs {
    /// Who answers the questions: "openai:URL#MODEL", a vision model on an OpenAI-compatible server (vLLM, llama.cpp, Ollama, OpenAI, ..),
    /// "openai", the one of --llm-config, "blip:DIR", a BLIP such as Salesforce/blip-vqa-base in the layout of transformers, or "oracle", which
    /// sees the shapes of the miniature world (64x64 pixels) and nothing else.
    #[arg(long, value_name = "NAME", value_parser = judge, group = COMPUTING)]
    vqa: Option<Judge>,
    /// Environment variable with the server's API key. Without it no key is sent.
    #[arg(long, value_name = "VAR", requires = "vqa")]
    api_key_env: Option<String>,
    /// Everything about the server as a TOML file, as for selma prompts: address, model, key, time-outs, retries, limits, budget, prices, extra fields.
    #[arg(
        long,
        value_name = "FILE.toml",
        requires = "vqa",
        conflicts_with = "api_key_env"
    )]
    llm_config: Option<PathBuf>,
    /// Requests made at once. Default: 4, or as the file of --llm-config says.
    #[arg(long, value_name = "N", requires = "vqa")]
    jobs: Option<NonZeroUsize>,
    /// Keep the answers in this file, and ask nothing that is in it: stopped at any time, the same command goes on from there.
    /// Answers belong to the pixels of a picture, the question and the model; unanswered questions are asked again.
    #[arg(long, value_name = "FILE.jsonl", requires = "vqa")]
    cache: Option<PathBuf>,
    /// Send pictures as JPEG of this quality, 1 to 100, instead of PNG.
    #[arg(long, value_name = "QUALITY", requires = "vqa")]
    jpeg: Option<u8>,
    /// Beginnings of answers that BLIP follows at once; 1 takes the likeliest token every time. Default: 1.
    #[arg(long, value_name = "N", requires = "vqa")]
    beams: Option<NonZeroUsize>,
    /// What BLIP, and the model of --embedder where there is one, compute on: flex (the CPU), wgpu, cuda or cuda:N. Default: flex.
    #[arg(long, value_name = "D", requires = COMPUTING)]
    device: Option<String>,
}

/// A judge by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judge {
    /// The oracle of the miniature world.
    Oracle,
    /// A model on a server: address and name, if they are not in a file.
    OpenAi(Option<(String, String)>),
    /// A BLIP in this folder.
    Blip(PathBuf),
}

fn judge(text: &str) -> Result<Judge, String> {
    match text.split_once(':') {
        None if text == "oracle" => Ok(Judge::Oracle),
        None if text == "openai" => Ok(Judge::OpenAi(None)),
        Some(("openai", server)) => match server.rsplit_once('#') {
            Some((url, model)) if !url.is_empty() && !model.is_empty() => {
                Ok(Judge::OpenAi(Some((url.to_owned(), model.to_owned()))))
            }
            _ => Err("expected openai:URL#MODEL".to_owned()),
        },
        Some(("blip", folder)) if !folder.is_empty() => Ok(Judge::Blip(folder.into())),
        _ => Err("expected openai:URL#MODEL, openai, blip:DIR or oracle".to_owned()),
    }
}

impl JudgeArgs {
    /// The judge that was named.
    pub fn vqa(&self) -> Option<&Judge> {
        self.vqa.as_ref()
    }

    /// Where answers are kept.
    pub fn cache(&self) -> Option<&PathBuf> {
        self.cache.as_ref()
    }

    /// What models in this program compute on.
    pub fn device(&self) -> anyhow::Result<Device> {
        Ok(device(self.device.as_deref().unwrap_or("flex"))?)
    }

    /// Has the judge answer about the pictures of a folder, which may be stopped. The device may be for somebody else, too.
    pub fn ask<R>(
        &self,
        images: &Path,
        prompt: ChatPrompt,
        shared: bool,
        work: impl FnOnce(&dyn Vqa) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        ensure!(images.is_dir(), "{} is not a folder", images.display());
        let blip = matches!(self.vqa, Some(Judge::Blip(_)));
        ensure!(
            blip || shared || self.device.is_none(),
            "--device is for models in this program alone, such as --vqa blip:DIR"
        );
        interrupt::install()?;
        self.with(prompt, work)
    }

    /// What came of asking; where it was stopped, what is left of it.
    pub fn finished<R>(
        &self,
        asked: Result<R, EvalError>,
        progress: Progress,
    ) -> anyhow::Result<R> {
        match asked {
            Err(EvalError::Cancelled { .. }) => bail!(self.interrupted()),
            other => {
                let result = other?;
                progress.finish();
                Ok(result)
            }
        }
    }

    fn interrupted(&self) -> String {
        match &self.cache {
            None => "interrupted; nothing was written".to_owned(),
            Some(path) => {
                let path = path.display();
                format!(
                    "interrupted; the answers so far are in {path}, and the same command goes on from there"
                )
            }
        }
    }

    /// Has the judge, who is asked in this way if he chats, do some work.
    fn with<R>(
        &self,
        prompt: ChatPrompt,
        work: impl FnOnce(&dyn Vqa) -> anyhow::Result<R>,
    ) -> anyhow::Result<R> {
        let blip = matches!(self.vqa, Some(Judge::Blip(_)));
        ensure!(
            blip || self.beams.is_none(),
            "--beams is for --vqa blip:DIR alone"
        );
        let server = self.llm_config.is_some() || self.api_key_env.is_some();
        let server = server || self.jobs.is_some() || self.jpeg.is_some();
        let judge: Box<dyn Vqa> = match &self.vqa {
            None => bail!("--vqa is needed"),
            Some(Judge::Oracle | Judge::Blip(_)) if server => bail!(
                "{} needs no server: leave out --llm-config, --api-key-env, --jobs and --jpeg",
                if blip { "BLIP" } else { "the oracle" }
            ),
            Some(Judge::Oracle) => Box::new(OracleVqa),
            Some(Judge::Blip(folder)) => Box::new(self.blip(folder, prompt)?),
            Some(Judge::OpenAi(server)) => {
                let client = OpenAiClient::new(self.config(server.as_ref())?)?;
                let format = self.jpeg.map_or(PictureFormat::Png, PictureFormat::Jpeg);
                Box::new(ChatVqa::new(client, prompt).with_format(format)?)
            }
        };
        let Some(path) = &self.cache else {
            return work(judge.as_ref());
        };
        let cached = CachedVqa::open(judge.as_ref(), path)?;
        let path = path.display();
        if cached.repaired_bytes() > 0 {
            let bytes = cached.repaired_bytes();
            say(format_args!(
                "{path}: a torn last line of {bytes} bytes was cut off"
            ));
        }
        let result = work(&cached)?;
        say(format_args!(
            "{path}: {} answers, of which {} were there already and were not asked for",
            cached.len(),
            cached.replayed()
        ));
        Ok(result)
    }

    fn blip(&self, folder: &Path, prompt: ChatPrompt) -> anyhow::Result<NamedVqa> {
        let beams = self.beams.unwrap_or(NonZeroUsize::MIN);
        Ok(NamedVqa::blip(folder, beams, prompt, &self.device()?)?)
    }

    fn config(&self, server: Option<&(String, String)>) -> anyhow::Result<OpenAiConfig> {
        let mut config = match (server, &self.llm_config) {
            (Some((url, model)), None) => OpenAiConfig::new(url, model),
            (None, Some(path)) => server::load(path)?,
            (Some(_), Some(_)) => {
                bail!("--llm-config names the server already: write --vqa openai")
            }
            (None, None) => bail!("--vqa openai needs --llm-config, or write openai:URL#MODEL"),
        };
        if let Some(variable) = &self.api_key_env {
            config.api_key_env = Some(variable.clone());
        }
        if let Some(jobs) = self.jobs {
            config.in_flight = jobs.get();
        }
        config.validate().context("the server of --vqa")?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_is_named() {
        let server =
            |url: &str, model: &str| Ok(Judge::OpenAi(Some((url.to_owned(), model.to_owned()))));
        assert_eq!(judge("oracle"), Ok(Judge::Oracle));
        assert_eq!(judge("openai"), Ok(Judge::OpenAi(None)));
        assert_eq!(judge("blip:a/b"), Ok(Judge::Blip("a/b".into())));
        assert_eq!(
            judge("openai:http://localhost:8000/v1#Qwen/Qwen2.5-VL"),
            server("http://localhost:8000/v1", "Qwen/Qwen2.5-VL")
        );
        for wrong in [
            "",
            "gpt",
            "openai:",
            "openai:http://a",
            "openai:#m",
            "openai:http://a#",
            "blip:",
            "blip",
        ] {
            assert!(judge(wrong).is_err(), "{wrong}");
        }
    }
}
