//! Which source numbers a convolution reads, along one axis of the image.
//!
//! The source is packed with zeros where the padding is, one *phase* for each residue of the stride, so that a tap of
//! the kernel is a fixed shift between neighbouring outputs. The outputs of the gradient of a strided convolution fall
//! into phases likewise, each of which sees its own taps; those of the forward pass are one phase.

/// A tap of the kernel along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    /// Its place in the kernel.
    pub(super) index: usize,
    /// The phase of the source it reads.
    pub(super) phase: usize,
    /// Output `t` reads the packed place `t + shift`.
    pub(super) shift: usize,
}

/// Outputs that see the same taps: number `t` of `count` is at `start + t * step`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outputs {
    pub(super) start: usize,
    pub(super) step: usize,
    pub(super) count: usize,
    pub(super) taps: Vec<Tap>,
}

/// One axis of a convolution or of its gradient with respect to the input.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Length of the source.
    pub(super) source: usize,
    /// Length of the destination.
    pub(super) destination: usize,
    /// Phases of the source: place `c` of phase `p` is the source number `c * phases + p - origin`.
    pub(super) phases: usize,
    /// Zeros before the source.
    origin: usize,
    /// The outputs by phase.
    pub(super) outputs: Vec<Outputs>,
}

impl Axis {
    /// The output of a convolution from its input, into which the kernel fits.
    pub(super) fn forward(input: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        let count = output_length(input, kernel, stride, padding);
        let taps = (0..kernel).map(|index| Tap {
            index,
            phase: index % stride,
            shift: index / stride,
        });
        let outputs = Outputs {
            start: 0,
            step: 1,
            count,
            taps: taps.collect(),
        };
        Self {
            source: input,
            destination: count,
            phases: stride,
            origin: padding,
            outputs: vec![outputs],
        }
    }

    /// The gradient of the input of a convolution from that of its output.
    pub(super) fn backward(input: usize, kernel: usize, stride: usize, padding: usize) -> Self {
        let source = output_length(input, kernel, stride, padding);
        // Input `x` gets from output `o` where `x + padding = o * stride + index`. With `x + padding = r * stride +
        // phase` those are the taps of that phase, and `o = r - index / stride`.
        let reach = kernel.saturating_sub(1) / stride;
        let origin = reach.saturating_sub(padding / stride);
        let outputs = (0..stride)
            .map(|start| {
                let phase = (start + padding) % stride;
                let first = (start + padding) / stride;
                let taps = (phase..kernel).step_by(stride).map(|index| Tap {
                    index,
                    phase: 0,
                    shift: origin + first - index / stride,
                });
                Outputs {
                    start,
                    step: stride,
                    count: input.saturating_sub(start).div_ceil(stride),
                    taps: taps.collect(),
                }
            })
            .collect();
        Self {
            source,
            destination: input,
            phases: 1,
            origin,
            outputs,
        }
    }

    /// Outputs of the longest phase.
    pub(super) fn count(&self) -> usize {
        self.outputs.iter().map(|o| o.count).max().unwrap_or(0)
    }

    /// The largest shift.
    pub(super) fn reach(&self) -> usize {
        let taps = self.outputs.iter().flat_map(|o| &o.taps);
        taps.map(|tap| tap.shift).max().unwrap_or(0)
    }

    /// Places of a packed row where rows follow one another. What a row reads beyond them are zeros before the next.
    pub(super) fn pitch(&self) -> usize {
        let needed = self.count() + self.reach();
        let shared = (0..self.phases)
            .map(|phase| {
                let (zeros, numbers) = self.span(phase);
                zeros.min(needed.saturating_sub(zeros + numbers))
            })
            .min()
            .unwrap_or(0);
        (needed - shared).max(self.count())
    }

    /// The zeros before the numbers of a phase, and how many numbers it has.
    pub(super) fn span(&self, phase: usize) -> (usize, usize) {
        let zeros = self.origin.saturating_sub(phase).div_ceil(self.phases);
        let numbers = (self.source + self.origin)
            .saturating_sub(phase)
            .div_ceil(self.phases);
        (zeros, numbers.saturating_sub(zeros))
    }

    /// The source number at place `at` of a phase, or `None` where a zero is.
    pub(super) fn place(&self, phase: usize, at: usize) -> Option<usize> {
        let place = (at * self.phases + phase).checked_sub(self.origin)?;
        (place < self.source).then_some(place)
    }
}

/// Length of the output of a convolution.
pub(super) fn output_length(input: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    (input + 2 * padding).saturating_sub(kernel) / stride.max(1) + 1
}

#[cfg(test)]
mod tests {
    use super::Axis;

    /// The pairs of output, tap and source number of an axis.
    fn triples(axis: &Axis) -> Vec<(usize, usize, usize)> {
        let mut triples = Vec::new();
        for outputs in &axis.outputs {
            for t in 0..outputs.count {
                for tap in &outputs.taps {
                    if let Some(place) = axis.place(tap.phase, t + tap.shift) {
                        triples.push((outputs.start + t * outputs.step, tap.index, place));
                    }
                }
            }
        }
        triples.sort_unstable();
        triples
    }

    #[test]
    fn an_axis_reads_what_the_definition_says() {
        for (input, kernel, stride, padding) in shapes() {
            let forward = Axis::forward(input, kernel, stride, padding);
            let mut expected = Vec::new();
            for o in 0..forward.destination {
                for index in 0..kernel {
                    let x = (o * stride + index).checked_sub(padding);
                    expected.extend(x.filter(|&x| x < input).map(|x| (o, index, x)));
                }
            }
            assert_eq!(triples(&forward), expected);
            let backward = Axis::backward(input, kernel, stride, padding);
            let mut turned: Vec<_> = expected.iter().map(|&(o, i, x)| (x, i, o)).collect();
            turned.sort_unstable();
            assert_eq!(
                triples(&backward),
                turned,
                "{input} {kernel} {stride} {padding}"
            );
        }
    }

    #[test]
    fn what_is_read_beyond_a_row_is_zero() {
        for (input, kernel, stride, padding) in shapes() {
            let axes = [
                Axis::forward(input, kernel, stride, padding),
                Axis::backward(input, kernel, stride, padding),
            ];
            for axis in axes {
                let pitch = axis.pitch();
                assert!(pitch >= axis.count());
                for phase in 0..axis.phases {
                    let (zeros, numbers) = axis.span(phase);
                    for at in 0..axis.count() + axis.reach() {
                        let inside = at >= zeros && at < zeros + numbers;
                        assert_eq!(axis.place(phase, at).is_some(), inside);
                        assert!(at < pitch || (!inside && at - pitch < zeros));
                    }
                }
            }
        }
    }

    fn shapes() -> impl Iterator<Item = (usize, usize, usize, usize)> {
        (1..9).flat_map(|input| {
            (1..5).flat_map(move |kernel| {
                (1..4).flat_map(move |stride| {
                    (0..kernel)
                        .filter(move |padding| kernel <= input + 2 * padding)
                        .map(move |padding| (input, kernel, stride, padding))
                })
            })
        })
    }
}
