//! The one error type of the crate.

mod context;

use std::{io, path::PathBuf};

use selma_durable::DurableError;

/// Everything that can go wrong when adapters are read, written, matched or merged.
///
/// Errors about the content of a file arrive wrapped in [`LoraError::InFile`], errors about one
/// module of a merge in [`LoraError::InModule`]; their text already holds the text of the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoraError {
    /// A file cannot be read.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried: `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// An error about the content of a file.
    #[error("{path}: {error}")]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<LoraError>,
    },
    /// An error about one module of an adapter.
    #[error("module {module}: {error}")]
    InModule {
        /// The dotted path of the module.
        module: String,
        /// What is wrong with it.
        error: Box<LoraError>,
    },

    /// The bytes are no safetensors file: truncated, overlapping, or something else altogether.
    #[error("not a readable safetensors file: {error}")]
    NotSafetensors {
        /// The cause.
        error: safetensors::SafeTensorError,
    },
    /// The header of a safetensors file gives one name twice; readers differ in which one they take.
    #[error("the header names {name:?} twice")]
    RepeatedName {
        /// The name of a tensor or of a note in the metadata.
        name: String,
    },
    /// The file holds no LoRA factors at all.
    #[error("the file holds no LoRA factors")]
    Empty,
    /// A tensor is stored in a type that adapters do not use.
    #[error("tensor {key} is stored as {found}, expected F32, F16 or BF16")]
    TensorDtype {
        /// The tensor's name in the file.
        key: String,
        /// The type found.
        found: String,
    },
    /// A file of few bytes stands for more numbers than any layer has.
    #[error("{what} has the shape {shape:?}, which is too large")]
    TooLarge {
        /// A tensor, or what is made of several.
        what: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor {key} holds a value that is not finite")]
    NonFinite {
        /// The tensor's name in the file, or the module's path and factor.
        key: String,
    },
    /// The tensor belongs to an update of another kind where LoRAs alone are wanted.
    /// [`AdapterFile::into_adapter`](crate::AdapterFile::into_adapter) makes LoRAs of most,
    /// [`into_adapter_on`](crate::AdapterFile::into_adapter_on) of DoRA.
    #[error("tensor {key} belongs to {}, expected a LoRA", .kind.with_article())]
    OtherKind {
        /// The tensor's name in the file, or what gives the kind away.
        key: String,
        /// The kind of update.
        kind: crate::Kind,
    },
    /// The tensor belongs to what is no update of a weight, or to a method that cannot be read.
    #[error("tensor {key} belongs to {kind}, which no LoRA can stand for")]
    Unsupported {
        /// The tensor's name in the file.
        key: String,
        /// What was recognised, for example `OFT`.
        kind: &'static str,
    },
    /// The file is one of PyTorch, of which only Python knows what reading it does.
    #[error(
        "a file of PyTorch (a pickle), expected safetensors; convert it in Python: \
        safetensors.torch.save_file(torch.load(FILE, weights_only=True), \"adapter.safetensors\")"
    )]
    TorchFile,
    /// A tensor name that no supported format uses.
    #[error("tensor {key} follows no known naming of LoRA factors")]
    UnknownKey {
        /// The tensor's name in the file.
        key: String,
    },
    /// The naming is that of LoRAs, but the module is of no model that is known.
    #[error(
        "tensor {key} is named as LoRAs are, but {path} is no module of Stable Diffusion, nor of the names given; \
        read it with the names of its model's modules (ModuleNames)"
    )]
    OtherModel {
        /// The tensor's name in the file.
        key: String,
        /// The module's path as the file has it.
        path: String,
    },
    /// The underscored module name of a kohya key stands for no known module.
    #[error("tensor {key}: no module is called {name} when its dots are written as underscores")]
    UnknownModule {
        /// The tensor's name in the file.
        key: String,
        /// The name looked for, without the `lora_unet_` or `lora_te_` prefix.
        name: String,
    },
    /// Two modules have the same name once their dots are underscores.
    #[error("{first} and {second} are the same name when dots are written as underscores")]
    AmbiguousName {
        /// One path.
        first: String,
        /// The other path.
        second: String,
    },
    /// One file mixes two naming schemes.
    #[error("{first} and {second} follow different naming schemes in one file")]
    MixedFormats {
        /// A tensor of the scheme met first.
        first: String,
        /// A tensor of another scheme.
        second: String,
    },
    /// Two tensors of the file are the same part of the same module.
    #[error("{first} and {second} are both the {part} of module {module}")]
    Duplicate {
        /// The module's path.
        module: String,
        /// `A`, `B` or `alpha`.
        part: &'static str,
        /// One tensor name.
        first: String,
        /// The other tensor name.
        second: String,
    },
    /// A module has only one of its two factors, or an alpha without factors.
    #[error("module {module} lacks its factor {missing} (there is {found})")]
    MissingFactor {
        /// The module's path.
        module: String,
        /// `A` (down) or `B` (up).
        missing: &'static str,
        /// A tensor of the module that is there.
        found: String,
    },
    /// An update cannot be said without the weight it is for.
    #[error("what {kind} does to a weight depends on the weight, which is not given")]
    BaseNeeded {
        /// The kind of update.
        kind: crate::Kind,
    },
    /// The shapes of the two factors do not belong together.
    #[error(
        "factors of shape A {a:?} and B {b:?} do not fit: expected A [rank, in, kernel..] and B [out, rank, 1..]"
    )]
    FactorShapes {
        /// Shape of `A`.
        a: Vec<usize>,
        /// Shape of `B`.
        b: Vec<usize>,
    },
    /// The shapes of two parts of a decomposed update do not belong together.
    #[error("{left} {left_shape:?} and {right} {right_shape:?} do not fit")]
    PartShapes {
        /// One part, for example `hada_w1_a`.
        left: &'static str,
        /// Its shape.
        left_shape: Vec<usize>,
        /// The other part.
        right: &'static str,
        /// Its shape.
        right_shape: Vec<usize>,
    },
    /// A dense update or weight has a shape that no layer has, or not that of its weight.
    #[error(
        "the shape {shape:?} is not that of the update, expected [out, in] or [out, in, kernel..]"
    )]
    DeltaShape {
        /// The shape.
        shape: Vec<usize>,
    },
    /// A module has tensors of two kinds of update.
    #[error("{first} and {second} make module {module} two kinds of update at once")]
    MixedKinds {
        /// The module's path.
        module: String,
        /// A tensor of one kind.
        first: String,
        /// A tensor of another.
        second: String,
    },
    /// A module has a part that has no place beside the others.
    #[error("module {module} has a {part} ({key}) that does not belong with its other tensors")]
    SurplusPart {
        /// The module's path.
        module: String,
        /// What the part is.
        part: &'static str,
        /// The tensor's name in the file.
        key: String,
    },
    /// A folder is not laid out as PEFT does it.
    #[error("the folder {path} {reason}")]
    PeftFolder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `adapter_config.json` cannot be understood.
    #[error("not a usable configuration of PEFT: {reason}")]
    PeftConfig {
        /// What is wrong with it.
        reason: String,
    },
    /// Modules of several components do not fit one file of PEFT.
    #[error(
        "a file of PEFT holds one component, found {first} and {second}; save a folder instead"
    )]
    ManyComponents {
        /// One component.
        first: String,
        /// Another one.
        second: String,
    },
    /// Alpha is NaN, infinite, or not one number.
    #[error("alpha is {alpha}, expected one finite number")]
    BadAlpha {
        /// What was found.
        alpha: String,
    },
    /// The metadata says another rank than the tensors have.
    #[error("the metadata gives rank {expected}, the factors have rank {found}")]
    MetadataRank {
        /// The rank according to `lora_adapter_metadata`.
        expected: usize,
        /// The rank of the tensors.
        found: usize,
    },
    /// `lora_adapter_metadata` cannot be understood.
    #[error("metadata lora_adapter_metadata is not usable: {reason}")]
    Metadata {
        /// What is wrong with it.
        reason: String,
    },
    /// A value does not fit the number type that was asked for.
    #[error("{key}: {value} does not fit {dtype}")]
    Overflow {
        /// The tensor's name.
        key: String,
        /// The value.
        value: f32,
        /// The number type.
        dtype: crate::Dtype,
    },
    /// A module's path does not begin with a component that the format can name.
    #[error(
        "module {module} cannot be written as {format}: its path does not begin with {}",
        if *.format == crate::Format::Kohya { "unet., text_encoder. or text_encoder_2." } else { "a component and a dot" }
    )]
    UnknownComponent {
        /// The module's path.
        module: String,
        /// The format asked for.
        format: crate::Format,
    },
    /// A word is not one of the names of a format, number type or merge method.
    #[error("unknown {what} {found:?}, expected one of {expected}")]
    UnknownName {
        /// What was being named.
        what: &'static str,
        /// The word.
        found: String,
        /// The names there are.
        expected: &'static str,
    },

    /// A merge of no adapters at all.
    #[error("nothing to merge: no adapters were given")]
    NoAdapters,
    /// A merge weight is NaN or infinite.
    #[error("the weight of adapter {index} is {weight}, expected a finite number")]
    BadWeight {
        /// Position of the adapter, from 0.
        index: usize,
        /// The weight.
        weight: f64,
    },
    /// The rank asked for is zero.
    #[error("the rank must be at least 1")]
    ZeroRank,
    /// A rule for choosing ranks has a value without meaning.
    #[error("the {name} of a rank rule is {value}, expected a number {expected}")]
    BadRankRule {
        /// `energy`, `threshold` or `ratio`.
        name: &'static str,
        /// The value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// An option of a merge has a value or a place that makes no sense.
    #[error("option {option} of merge method {method} is {found}, expected {expected}")]
    MergeOption {
        /// The field of [`Merge`](crate::Merge).
        option: &'static str,
        /// The method's name.
        method: crate::Method,
        /// What was expected.
        expected: String,
        /// The value, or `missing`.
        found: String,
    },
    /// A method is for another number of adapters.
    #[error("merge method {method} takes {expected} adapters, found {found}")]
    AdapterCount {
        /// The method's name.
        method: crate::Method,
        /// How many it takes.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A file of masks holds something else.
    #[error("mask {key} is stored as {found}, expected BOOL or U8")]
    MaskDtype {
        /// The tensor's name in the file.
        key: String,
        /// The type found.
        found: String,
    },
    /// The masks from outside do not fit the adapters.
    #[error("mask {key}: expected {expected} entries, found {}", found.map_or_else(|| "no such mask".to_owned(), |n| n.to_string()))]
    Mask {
        /// `module.adapter.part`.
        key: String,
        /// Entries of the tensor to be masked.
        expected: usize,
        /// Entries of the mask; `None` when there is none.
        found: Option<usize>,
    },
    /// Calibration statistics do not fit the adapters.
    #[error("calibration statistics {what}: expected {expected}, found {found}")]
    Calibration {
        /// What does not fit.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A file of calibration statistics holds something else.
    #[error("calibration statistics, {key}: expected {expected}, found {found}")]
    CalibrationFile {
        /// The tensor's name in the file, a module's path, or an entry of the metadata.
        key: String,
        /// What was expected.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A mixture cannot be made of these adapters, or not be used so.
    #[error("mixture, {what}: expected {expected}, found {found}")]
    Mixture {
        /// What cannot be.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What there is.
        found: String,
    },
    /// A file of a mixture holds something else.
    #[error("mixture, {key}: expected {expected}, found {found}")]
    MixtureFile {
        /// The tensor's name in the file, a module's path, or an entry of the metadata.
        key: String,
        /// What was expected.
        expected: String,
        /// What there is.
        found: String,
    },
    /// The file is one of a [`Mixture`](crate::Mixture), which is no update of a weight, where an adapter is wanted.
    #[error(
        "this is a mixture of adapters, which is no adapter: it can be drawn with, not merged or fused"
    )]
    IsMixture,
    /// The dense updates of a module take more memory than they may.
    #[error(
        "the dense updates that merge method {method} works on take {bytes} bytes for a weight of the shape \
        {weight:?}, at most {limit} are allowed; merge by a method in factor space (svd, knots_*, core_*), or raise dense_limit"
    )]
    DenseTooLarge {
        /// The method's name.
        method: crate::Method,
        /// Shape of the weight.
        weight: Vec<usize>,
        /// What all that is held at once takes.
        bytes: u64,
        /// See [`Merge::dense_limit`](crate::Merge::dense_limit).
        limit: u64,
    },
    /// Two adapters are for weights of different shapes.
    #[error(
        "adapters were made for different weights: expected [out, in, kernel..] {expected:?}, found {found:?}"
    )]
    WeightShapes {
        /// Shape in the first adapter that has the module.
        expected: Vec<usize>,
        /// The other shape.
        found: Vec<usize>,
    },
    /// Methods that combine the factors themselves need equal ranks.
    #[error(
        "factors of rank {expected} and {found} cannot be averaged; merge by mean, sum or svd instead"
    )]
    Ranks {
        /// Rank in the first adapter that has the module.
        expected: usize,
        /// The other rank.
        found: usize,
    },
    /// A singular value decomposition did not converge.
    #[error("the singular value decomposition of the merged factors did not converge")]
    NoConvergence,
    /// The merged factors do not do what the formula says.
    #[error(
        "self-check failed: the merged factors are off by {found:e} of the formula's size, at most {limit:e} is explained by rounding and truncation"
    )]
    SelfCheck {
        /// Relative error found on random vectors.
        found: f64,
        /// The largest acceptable error.
        limit: f64,
    },

    /// A checkpoint's folder cannot be read or written as it is.
    #[error("{path} {reason}")]
    CheckpointFolder {
        /// The folder, or a file in it.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A module of the adapter does not exist in the model.
    #[error("the model has no such module")]
    NotInModel,
    /// No module of the adapter exists in the model.
    #[error(
        "no module of the adapter exists in the model: the adapter has {adapter:?}.., the model has {model:?}.."
    )]
    NothingMatched {
        /// The first few modules of the adapter.
        adapter: Vec<String>,
        /// The first few modules of the model.
        model: Vec<String>,
    },
    /// Factors cannot be read back from the device they are on.
    #[error("factors of shape {shape:?} cannot be read from their device")]
    Device {
        /// Shape of the factor.
        shape: Vec<usize>,
    },
    /// Some modules of the adapter do not fit the model.
    #[error(
        "{} modules of the adapter are not in the model ({}), {} have another shape ({})",
        unmatched.len(),
        first_few(unmatched),
        mis_shaped.len(),
        first_few(mis_shaped)
    )]
    NotStrict {
        /// Modules that the model does not have.
        unmatched: Vec<String>,
        /// Modules whose weight has another shape in the model.
        mis_shaped: Vec<String>,
    },
}

/// Names for a message; an adapter for another model has hundreds.
fn first_few(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let mut shown = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("{name:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        shown += &format!(" and {} more", names.len() - SHOWN);
    }
    shown
}
