//! Group normalisation, with the activation that follows it.
//!
//! A block is one group of one sample: consecutive in memory, and in the diffusion models at hand small enough for the
//! second-level cache. So its statistics take two passes (mean, then deviations from it), which lose no precision when
//! the mean is large against the deviation.

use core::marker::PhantomData;

use burn::backend::TensorMetadata;

use super::math::{Activation, Identity, Itself, Map1, Map2, Silu};
use super::simd::{Kernel, Writer, chunk_of, fill};
use super::storage::{Storage, contiguous, shaped, tensor};
use super::sums::{sum, sum_pair};

/// What the normalisation is told besides its tensors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Groups the channels are divided into.
    pub(crate) groups: usize,
    /// Added to the variance.
    pub(crate) eps: f64,
    /// Whether SiLU follows.
    pub(crate) silu: bool,
}

/// `x: [batch, channels, height, width]` normalised, scaled by `weight` and shifted by `bias` (`[channels]`).
pub(crate) fn forward(x: Storage, weight: Storage, bias: Storage, options: Options) -> Storage {
    fn run<A: Activation>(norm: &Norm<'_>, x: &Storage) -> Storage {
        let kernel = ForwardKernel::<A> {
            norm: *norm,
            activation: PhantomData,
        };
        tensor(fill(norm.x.len(), norm.block(), &kernel), x)
    }

    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let norm = Norm::new(&x, &weight, &bias, options);
    if options.silu {
        run::<Silu>(&norm, &x)
    } else {
        run::<Identity>(&norm, &x)
    }
}

/// The gradient with respect to `x`, for the gradient `dy` with respect to the output.
pub(crate) fn backward_input(
    x: Storage,
    weight: Storage,
    bias: Storage,
    dy: Storage,
    options: Options,
) -> Storage {
    fn run<A: Activation>(norm: &Norm<'_>, dy: &Storage, x: &Storage) -> Storage {
        let kernel = InputKernel::<A> {
            norm: *norm,
            dy: dy.storage::<f32>(),
            activation: PhantomData,
        };
        tensor(fill(norm.x.len(), norm.block(), &kernel), x)
    }

    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let dy = contiguous(dy);
    let norm = Norm::new(&x, &weight, &bias, options);
    if options.silu {
        run::<Silu>(&norm, &dy, &x)
    } else {
        run::<Identity>(&norm, &dy, &x)
    }
}

/// The gradients with respect to `weight` and `bias`, for the gradient `dy` with respect to the output.
pub(crate) fn backward_affine(
    x: Storage,
    weight: Storage,
    bias: Storage,
    dy: Storage,
    options: Options,
) -> (Storage, Storage) {
    fn run<A: Activation>(norm: &Norm<'_>, dy: &Storage) -> Vec<f32> {
        let kernel = AffineKernel::<A> {
            norm: *norm,
            dy: dy.storage::<f32>(),
            activation: PhantomData,
        };
        let blocks = norm.batch * norm.groups;
        fill(blocks * 2 * norm.per_group, 2 * norm.per_group, &kernel)
    }

    let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
    let dy = contiguous(dy);
    let norm = Norm::new(&x, &weight, &bias, options);
    let sums = if options.silu {
        run::<Silu>(&norm, &dy)
    } else {
        run::<Identity>(&norm, &dy)
    };
    let channels = norm.groups * norm.per_group;
    let mut dw = vec![0.0_f64; channels];
    let mut db = vec![0.0_f64; channels];
    for sample in sums.chunks(2 * channels) {
        let pairs = sample.as_chunks::<2>().0.iter();
        for ((dw, db), &[scaled, plain]) in dw.iter_mut().zip(&mut db).zip(pairs) {
            *dw += f64::from(scaled);
            *db += f64::from(plain);
        }
    }
    let narrow = |sums: Vec<f64>| sums.into_iter().map(|v| v as f32).collect();
    (
        shaped(narrow(dw), [channels]),
        shaped(narrow(db), [channels]),
    )
}

/// The operands of a normalisation and how its memory is laid out.
#[derive(Clone, Copy, Debug)]
struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f64,
    batch: usize,
    groups: usize,
    /// Channels in a group.
    per_group: usize,
    /// Numbers in a channel of a sample.
    plane: usize,
}

impl<'a> Norm<'a> {
    fn new(x: &'a Storage, weight: &'a Storage, bias: &'a Storage, options: Options) -> Self {
        let [batch, channels, height, width] = x.shape().dims();
        Self {
            x: x.storage::<f32>(),
            weight: weight.storage::<f32>(),
            bias: bias.storage::<f32>(),
            eps: options.eps,
            batch,
            groups: options.groups,
            per_group: channels / options.groups,
            plane: height * width,
        }
    }

    /// Numbers in a block.
    fn block(&self) -> usize {
        self.per_group * self.plane
    }

    /// The numbers of the block number `index`, and its mean and reciprocal standard deviation.
    #[inline(always)]
    fn statistics(&self, index: usize) -> (&'a [f32], f32, f64) {
        let x = chunk_of(self.x, index, self.block());
        let count = x.len() as f64;
        let mean = (sum(x, Itself) / count) as f32;
        let variance = sum(x, SquaredDeviation { mean }) / count;
        (x, mean, 1.0 / (variance + self.eps).sqrt())
    }

    /// Weight and bias of each channel of the block number `index`.
    #[inline(always)]
    fn affine(&self, index: usize) -> impl Iterator<Item = (f32, f32)> {
        let group = index % self.groups;
        let weight = chunk_of(self.weight, group, self.per_group);
        let bias = chunk_of(self.bias, group, self.per_group);
        weight.iter().copied().zip(bias.iter().copied())
    }
}

#[derive(Clone, Copy)]
struct SquaredDeviation {
    mean: f32,
}

impl Map1 for SquaredDeviation {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        (x - self.mean) * (x - self.mean)
    }
}

/// One channel of a block: `activation((x - mean) * scale + bias)`.
#[derive(Clone, Copy)]
struct Channel<A> {
    mean: f32,
    scale: f32,
    bias: f32,
    activation: PhantomData<A>,
}

impl<A: Activation> Map1 for Channel<A> {
    #[inline(always)]
    fn apply(self, x: f32) -> f32 {
        A::forward((x - self.mean) * self.scale + self.bias)
    }
}

/// Of a number and the gradient of its output, the gradient before the activation.
#[derive(Clone, Copy)]
struct BeforeActivation<A>(Channel<A>);

impl<A: Activation> Map2 for BeforeActivation<A> {
    #[inline(always)]
    fn apply(self, x: f32, dy: f32) -> f32 {
        let Self(c) = self;
        dy * A::derivative((x - c.mean) * c.scale + c.bias)
    }
}

/// Of a number and the gradient of its output, the gradient of the number.
#[derive(Clone, Copy)]
struct InputGradient<A> {
    channel: Channel<A>,
    shift: f32,
    slope: f32,
}

impl<A: Activation> Map2 for InputGradient<A> {
    #[inline(always)]
    fn apply(self, x: f32, dy: f32) -> f32 {
        let c = self.channel;
        let dz = BeforeActivation(c).apply(x, dy);
        dz * c.scale - (self.shift + (x - c.mean) * self.slope)
    }
}

struct ForwardKernel<'a, A> {
    norm: Norm<'a>,
    activation: PhantomData<A>,
}

impl<A: Activation> Kernel for ForwardKernel<'_, A> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let (x, mean, rstd) = self.norm.statistics(index);
        for (x, (weight, bias)) in x.chunks(self.norm.plane).zip(self.norm.affine(index)) {
            out.map(x, channel::<A>(mean, rstd, weight, bias));
        }
    }
}

struct InputKernel<'a, A> {
    norm: Norm<'a>,
    dy: &'a [f32],
    activation: PhantomData<A>,
}

impl<A: Activation> Kernel for InputKernel<'_, A> {
    // With xhat = (x - mean) rstd and g = weight dz, averages over the block:
    // dx = rstd (g - avg(g) - xhat avg(g xhat)).
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let (x, mean, rstd) = self.norm.statistics(index);
        let dy = chunk_of(self.dy, index, self.norm.block());
        let plane = self.norm.plane;
        let (mut plain, mut deviation) = (0.0, 0.0);
        for ((x, dy), (weight, bias)) in x
            .chunks(plane)
            .zip(dy.chunks(plane))
            .zip(self.norm.affine(index))
        {
            let f = BeforeActivation(channel::<A>(mean, rstd, weight, bias));
            let (dz, dz_deviation) = sum_pair(x, dy, mean, f);
            plain += f64::from(weight) * dz;
            deviation += f64::from(weight) * dz_deviation;
        }
        let count = x.len() as f64;
        let shift = (rstd * plain / count) as f32;
        let slope = (rstd * rstd * rstd * deviation / count) as f32;
        for ((x, dy), (weight, bias)) in x
            .chunks(plane)
            .zip(dy.chunks(plane))
            .zip(self.norm.affine(index))
        {
            let f = InputGradient {
                channel: channel::<A>(mean, rstd, weight, bias),
                shift,
                slope,
            };
            out.zip(x, dy, f);
        }
    }
}

/// Writes of each channel of a block the sums of `dz xhat` and of `dz`.
struct AffineKernel<'a, A> {
    norm: Norm<'a>,
    dy: &'a [f32],
    activation: PhantomData<A>,
}

impl<A: Activation> Kernel for AffineKernel<'_, A> {
    #[inline(always)]
    fn run(&self, index: usize, out: &mut Writer<'_>) {
        let (x, mean, rstd) = self.norm.statistics(index);
        let dy = chunk_of(self.dy, index, self.norm.block());
        let plane = self.norm.plane;
        for ((x, dy), (weight, bias)) in x
            .chunks(plane)
            .zip(dy.chunks(plane))
            .zip(self.norm.affine(index))
        {
            let f = BeforeActivation(channel::<A>(mean, rstd, weight, bias));
            let (dz, dz_deviation) = sum_pair(x, dy, mean, f);
            out.map(&[(rstd * dz_deviation) as f32, dz as f32], Itself);
        }
    }
}

#[inline(always)]
fn channel<A>(mean: f32, rstd: f64, weight: f32, bias: f32) -> Channel<A> {
    Channel {
        mean,
        scale: (rstd * f64::from(weight)) as f32,
        bias,
        activation: PhantomData,
    }
}
