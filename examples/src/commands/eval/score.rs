//! `selma eval score`.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;
use selma::{ScorerName, ScorerSettings};
use selma_dataset::{Pictures, write_scores};
use selma_diffusion::device;
use selma_diffusion::scorers::PictureScorer;
use selma_eval::{Bootstrap, Estimate, EvalError, mean_score, score_pictures};

use crate::commands::data::DataOptions;
use crate::commands::values;
use crate::interrupt;
use crate::output::{check_file, spare};
use crate::progress::Progress;
use crate::table::columns;
use crate::terminal::{print, say};

/// Score pictures by a model that knows what fits a text or what people like.
///
/// clip: 100 times the cosine of picture and caption, not below 0 (CLIP ViT-B/32 or L/14). pickscore: PickScore_v1. hps, hps21:
/// HPS_v2_compressed.pt, HPS_v2.1_compressed.pt. imagereward: ImageReward.pt, with BERT's vocabulary beside it. aesthetic: LAION's predictor, a head on CLIP ViT-L/14; captions do not count.
/// The interval is 95% and takes the prompts, not the pictures, as independent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma eval score --scorer pickscore --weights PickScore_v1 --images images/coco --out scores.jsonl
  selma eval score --scorer hps21 --weights HPS_v2.1_compressed.pt --images images/coco --out scores.jsonl
  selma pairs --data images/coco --scores scores.jsonl --scorer hps21 --out pairs.jsonl")]
pub struct Args {
    /// What scores.
    #[arg(long, value_name = "NAME", value_parser = values::named::<ScorerName>(ScorerName::ALL.map(ScorerName::name)))]
    scorer: ScorerName,
    /// Its weights: a folder in the layout of transformers, a file under OpenCLIP's or transformers' names, or ImageReward.pt or its folder.
    #[arg(long, value_name = "DIR|FILE")]
    weights: PathBuf,
    /// The weights on top of CLIP, of the aesthetic predictor: sac+logos+ava1-l14-linearMSE.pth, or a single linear map.
    #[arg(long, value_name = "FILE", required_if_eq("scorer", "aesthetic"))]
    head: Option<PathBuf>,
    /// Pictures with captions, in any layout that `selma train` reads.
    #[arg(long, value_name = "DIR|FILE.tar")]
    images: PathBuf,
    #[command(flatten)]
    reading: DataOptions,
    /// Name of the scorer beside its scores. Default: that of --scorer.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Pictures scored together.
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: NonZeroUsize,
    /// What computes: flex (the CPU), wgpu, cuda or cuda:N.
    #[arg(long, value_name = "D", default_value = "flex")]
    device: String,
    /// Also write the score of each picture, for `selma pairs --scores` and `selma train --scores`.
    #[arg(long, value_name = "FILE.jsonl")]
    out: Option<PathBuf>,
}

impl Args {
    fn settings(&self) -> anyhow::Result<ScorerSettings> {
        if self.head.is_some() && self.scorer != ScorerName::Aesthetic {
            bail!("--head is for --scorer aesthetic alone");
        }
        Ok(ScorerSettings {
            scorer: self.scorer,
            weights: self.weights.clone(),
            head: self.head.clone(),
            name: self.name.clone(),
        })
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let settings = args.settings()?;
    let inputs = std::iter::once(&args.weights).chain(&args.head);
    spare(inputs.map(PathBuf::as_path), args.out.as_deref())?;
    args.out.as_deref().map(check_file).transpose()?;
    let pictures = args.reading.open(&args.images)?;
    let device = device(&args.device)?;
    let scorer = settings.load(&device)?;
    tell_cut(&*pictures, &scorer.scorer)?;
    let mut progress = Progress::new("scoring", pictures.len() as u64, "pictures");
    let scored = score_pictures(&*pictures, &scorer, args.batch_size, |done| {
        progress.set(done as u64, "");
        interrupt::flow()
    });
    let scores = match scored {
        Err(EvalError::Cancelled { .. }) => bail!("interrupted; nothing was written"),
        other => other?,
    };
    progress.finish();
    let mean = mean_score(&*pictures, &scores, &Bootstrap::default())?;
    if let Some(path) = &args.out {
        write_scores(path, &scores)?;
    }
    print(text(&scorer.name, &mean))
}

/// Says how many captions are longer than the scorer reads.
fn tell_cut(pictures: &dyn Pictures, scorer: &PictureScorer) -> anyhow::Result<()> {
    let texts = (0..pictures.len()).filter_map(|number| pictures.text(number));
    let texts: BTreeSet<&str> = texts.collect();
    let mut cut = 0;
    for text in &texts {
        cut += usize::from(scorer.dropped_tokens(text)? > 0);
    }
    if cut > 0 {
        say(format_args!(
            "{cut} of {} captions are too long for the scorer, which does not read their ends",
            texts.len()
        ));
    }
    Ok(())
}

fn text(name: &str, mean: &Estimate) -> String {
    let row = [
        name.to_owned(),
        format!("{:.4}", mean.mean),
        format!("[{:.4}, {:.4}]", mean.low, mean.high),
        mean.n.to_string(),
        mean.clusters.to_string(),
    ];
    let heading = ["scorer", "mean", "95% interval", "pictures", "prompts"];
    columns(heading, &[row])
}
