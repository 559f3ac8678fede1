//! Merging from files to a file, a module at a time.

use std::{collections::BTreeMap, path::Path};

use rayon::prelude::*;

use super::{
    Merge, MergeInput, MergeReport, ModuleReport, Plan,
    check::rounding,
    in_order::in_order,
    pipeline::{Pipeline, Stacked},
    report::{common_notes, recipe},
};
use crate::{
    AdapterReader, Dtype, Format, LoraError,
    format::{Expected, FileWriter, Tensor},
};

/// An adapter on disk and what its update is multiplied by.
#[derive(Debug, Clone, Copy)]
pub struct WeightedFile<'a> {
    /// The adapter.
    pub adapter: &'a AdapterReader,
    /// The weight; 1 takes the adapter as it is, a negative one subtracts it.
    pub weight: f64,
}

/// What the threads do: the hashes of the inputs come first, so that no thread waits for another that reads the last one.
enum Job<'a> {
    Hash(&'a AdapterReader),
    /// A module's path and its name in the file.
    Merge(&'a (String, String)),
}

/// What they have done.
enum Done {
    Hash(String),
    /// A module's tensors, its rank and alpha, and what is reported of it.
    Merge(Vec<Tensor>, (usize, f64), Box<ModuleReport>),
}

fn described(inputs: &[WeightedFile<'_>], hashes: Vec<String>) -> Vec<MergeInput> {
    let weights = inputs.iter().map(|input| input.weight);
    let pairs = hashes.into_iter().zip(weights);
    pairs
        .map(|(sha256, weight)| MergeInput { sha256, weight })
        .collect()
}

impl Merge {
    /// Merges adapters on disk into a file, which holds the same bytes as what [`run`](Self::run) gives and
    /// [`Adapter::save`](crate::Adapter::save) writes. Modules are read, merged and written one by one, in parallel: there is no
    /// more than one of them in memory for each thread, however large the adapters are, and a few merged ones that wait for
    /// their turn in the file. (A folder of [`Format::Peft`] is gathered in memory, merged modules only.)
    ///
    /// The inputs are read twice, once for their SHA-256, which the metadata record. `path`
    /// may be one of them: it is replaced when all is done, and untouched if anything fails.
    ///
    /// ```
    /// use selma_lora::{Adapter, AdapterReader, Dtype, Format, Merge, Method, WeightedFile, init};
    ///
    /// # let folder = tempfile::tempdir().expect("a temporary folder");
    /// # let file = |name: &str| folder.path().join(name);
    /// # let module = init::gaussian("unet.conv_in", &[320, 4, 3, 3], 8, 8.0, 42)?;
    /// # Adapter::new([("unet.conv_in".to_owned(), module)]).save(file("a.safetensors"), Format::Kohya, Dtype::F32)?;
    /// let adapter = AdapterReader::open(file("a.safetensors"))?;
    /// let inputs = [0.5, 0.25].map(|weight| WeightedFile { adapter: &adapter, weight });
    /// let output = file("merged.safetensors");
    /// let report = Merge::new(Method::Sum).run_files(&inputs, &output, Format::Kohya, Dtype::F16)?;
    /// assert_eq!(report.modules[0].rank, 16);
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run) and [`Adapter::save`](crate::Adapter::save), and those of [`AdapterReader::module`].
    pub fn run_files(
        &self,
        inputs: &[WeightedFile<'_>],
        path: impl AsRef<Path>,
        format: Format,
        dtype: Dtype,
    ) -> Result<MergeReport, LoraError> {
        let path = path.as_ref();
        let sources = inputs.iter().map(|input| (input.adapter, input.weight));
        let plan = self.plan(sources.collect())?;
        let notes = common_notes(plan.inputs.iter().map(|(input, _)| input.metadata()));
        let metadata = |inputs: &[MergeInput]| {
            let mut metadata = notes.clone();
            metadata.insert("selma_merge".to_owned(), recipe(self, inputs));
            metadata
        };
        if format == Format::Peft {
            let hashes = inputs
                .par_iter()
                .map(|input| input.adapter.sha256())
                .collect::<Result<Vec<_>, LoraError>>()?;
            self.check_calibration(hashes.iter().cloned())?;
            let inputs = described(inputs, hashes);
            let (mut adapter, mut reports) = plan.all()?;
            adapter.metadata = metadata(&inputs);
            if dtype != Dtype::F32 {
                reports.par_iter_mut().try_for_each(|report| {
                    let Some(module) = adapter.modules.get(&report.module) else {
                        return Ok(());
                    };
                    let named = (report.module.clone(), report.module.clone());
                    let tensors = FileWriter::encode(&named, module, format, dtype)?;
                    let stored = FileWriter::decode(&tensors, module, format)?;
                    report.rounding = rounding(&report.module, module, &stored);
                    Ok::<(), LoraError>(())
                })?;
            }
            adapter.save(path, format, dtype)?;
            return Ok(MergeReport::new(self.clone(), inputs, reports));
        }
        let in_file = |error: LoraError| error.in_file(path);
        // Room is left for the hashes, which all have the same length.
        let unknown = inputs.iter().map(|_| "0".repeat(64)).collect();
        let unknown = metadata(&described(inputs, unknown));
        let mut writer = FileWriter::create(path, format, dtype, &unknown, &self.expected(&plan)?)?;
        let order = writer.order();
        let hash = inputs.iter().map(|input| Job::Hash(input.adapter));
        let jobs: Vec<Job<'_>> = hash.chain(order.iter().map(Job::Merge)).collect();
        let mut reports = Vec::with_capacity(order.len());
        let mut hashes = Vec::with_capacity(inputs.len());
        in_order(
            &jobs,
            |job| {
                let named = match job {
                    Job::Hash(adapter) => return adapter.sha256().map(Done::Hash),
                    Job::Merge(named) => *named,
                };
                let (module, mut report) = plan.module(&named.0)?;
                let tensors = FileWriter::encode(named, &module, format, dtype).map_err(in_file)?;
                if dtype != Dtype::F32 {
                    let stored = FileWriter::decode(&tensors, &module, format).map_err(in_file)?;
                    report.rounding = rounding(&named.0, &module, &stored);
                }
                let outline = (module.rank(), module.alpha);
                Ok(Done::Merge(tensors, outline, Box::new(report)))
            },
            |done| {
                match done {
                    Done::Hash(hash) => {
                        hashes.push(hash);
                        if hashes.len() == inputs.len() {
                            self.check_calibration(hashes.iter().cloned())?;
                        }
                    }
                    Done::Merge(tensors, outline, report) => {
                        writer.push(&report.module, outline, tensors)?;
                        reports.push(*report);
                    }
                }
                Ok::<(), LoraError>(())
            },
        )?;
        let inputs = described(inputs, hashes);
        writer.finish(&metadata(&inputs))?;
        reports.sort_by(|x, y| x.module.cmp(&y.module));
        Ok(MergeReport::new(self.clone(), inputs, reports))
    }

    /// What the merged modules will look like, as far as it can be known: ranks that depend on the
    /// values are taken to be as large as they can get.
    fn expected(
        &self,
        plan: &Plan<'_, AdapterReader>,
    ) -> Result<BTreeMap<String, Expected>, LoraError> {
        let pipeline = Pipeline::of(self.method, plan.inputs.len());
        plan.paths
            .iter()
            .map(|&path| {
                let shapes = plan
                    .inputs
                    .iter()
                    .filter_map(|(input, _)| input.shapes(path));
                let mut weight: Vec<usize> = Vec::new();
                let mut ranks = Vec::new();
                for (a, b) in shapes {
                    ranks.push(a.first().copied().unwrap_or(0));
                    if a.len() > weight.len() {
                        weight = b.iter().take(1).chain(a.iter().skip(1)).copied().collect();
                    }
                }
                let largest = ranks.iter().copied().max().unwrap_or(0);
                let outputs = weight.first().copied().unwrap_or(0);
                let size = outputs.min(weight.iter().skip(1).product());
                let whole = if pipeline.keeps_rank() {
                    largest
                } else if pipeline.is_dense() {
                    size
                } else {
                    ranks.iter().sum()
                };
                let limit = match self.rank {
                    None if pipeline.is_dense() || self.method.truncates() => Some(largest),
                    rank => rank,
                };
                let rank = limit.map_or(whole, |limit| limit.min(size).min(whole));
                let exact = matches!(pipeline, Pipeline::Stacked(Stacked::Sum | Stacked::Mean));
                let lambda = match limit {
                    None if exact => self.lambda_or_default(),
                    _ => 1.0,
                };
                let kernel = weight.iter().skip(2).map(|_| 1);
                let expected = Expected {
                    a: [rank]
                        .into_iter()
                        .chain(weight.iter().skip(1).copied())
                        .collect(),
                    b: [outputs, rank].into_iter().chain(kernel).collect(),
                    alpha: lambda * rank as f64,
                };
                Ok((path.clone(), expected))
            })
            .collect()
    }
}
