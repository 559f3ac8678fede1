//! A tensor in a mapped file.

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bytes, DType, TensorData};
use half::{bf16, f16};
use safetensors::Dtype;
use selma_lora::fuse::Part;

use super::mapped::MappedFile;

/// Where a tensor lies in a file, and in which order its elements do.
///
/// Cutting rows, transposing or dropping dimensions changes this description alone; values are read once, by
/// [`floats`](Self::floats).
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    file: Arc<MappedFile>,
    dtype: Dtype,
    /// Byte of the first element.
    start: usize,
    shape: Vec<usize>,
    /// Elements from one index to the next, a dimension.
    strides: Vec<usize>,
}

impl StoredTensor {
    /// A tensor whose elements lie one after the other; `None` if it does not lie in the file.
    pub(crate) fn contiguous(
        file: Arc<MappedFile>,
        dtype: Dtype,
        start: usize,
        shape: Vec<usize>,
    ) -> Option<Self> {
        let strides = contiguous_strides(&shape)?;
        Self::strided(file, dtype, start, shape, strides)
    }

    /// A tensor with any strides; `None` if it does not lie in the file or its numbers are no whole bytes.
    pub(crate) fn strided(
        file: Arc<MappedFile>,
        dtype: Dtype,
        start: usize,
        shape: Vec<usize>,
        strides: Vec<usize>,
    ) -> Option<Self> {
        let tensor = Self {
            file,
            dtype,
            start,
            shape,
            strides,
        };
        let range = tensor.range()?;
        let bytes = tensor.file.bytes().len();
        // No file expands a tensor to more elements than it has bytes; one that says so would only fill the memory.
        (range.end <= bytes && tensor.len() <= bytes).then_some(tensor)
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements; the shape was checked not to overflow.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Rows of the first dimension.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (&count, &stride) = (self.shape.first()?, self.strides.first()?);
        if rows.end > count || rows.start > rows.end {
            return None;
        }
        let mut part = self.clone();
        part.start += rows.start * stride * self.element()?;
        *part.shape.first_mut()? = rows.len();
        Some(part)
    }

    /// The transpose of a matrix.
    pub(crate) fn transposed(&self) -> Option<Self> {
        if self.shape.len() != 2 {
            return None;
        }
        let mut turned = self.clone();
        turned.shape.reverse();
        turned.strides.reverse();
        Some(turned)
    }

    /// A convolution of kernel size 1 as the matrix that it is; a matrix as it is.
    pub(crate) fn pointwise(&self) -> Option<Self> {
        let mut matrix = self.clone();
        let trailing = self.shape.get(2..)?;
        if trailing.iter().any(|&size| size != 1) {
            return None;
        }
        matrix.shape.truncate(2);
        matrix.strides.truncate(2);
        Some(matrix)
    }

    /// Which part of a tensor this is, if it was made of that by the methods above.
    pub(crate) fn part_of(&self, whole: &Self) -> Option<Part> {
        if self.start == whole.start && self.strides == whole.strides && self.shape == whole.shape {
            return Some(Part::Whole);
        }
        let turned = whole.transposed();
        if turned.is_some_and(|turned| self.start == turned.start && self.strides == turned.strides)
        {
            return Some(Part::Transposed);
        }
        let (&stride, &rows) = (whole.strides.first()?, self.shape.first()?);
        let bytes = self.start.checked_sub(whole.start)?;
        let first = bytes.checked_div(stride * self.element()?)?;
        (self.strides == whole.strides).then(|| Part::Rows(first..first + rows))
    }

    /// Bytes from the first to behind the last element.
    pub(crate) fn range(&self) -> Option<Range<usize>> {
        let element = self.element()?;
        let mut last = 0usize;
        let mut count = 1usize;
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            count = count.checked_mul(size.max(1))?;
            last = last.checked_add(size.saturating_sub(1).checked_mul(stride)?)?;
        }
        if self.shape.contains(&0) {
            return Some(self.start..self.start);
        }
        let bytes = last.checked_add(1)?.checked_mul(element)?;
        Some(self.start..self.start.checked_add(bytes)?)
    }

    /// Whether [`floats`](Self::floats) has values.
    pub(crate) fn is_floating(&self) -> bool {
        matches!(
            self.dtype,
            Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64
        )
    }

    /// Values widened to `f32`; `None` if they are not of `F16`, `BF16`, `F32` or `F64`.
    pub(crate) fn floats(&self) -> Option<Vec<f32>> {
        match self.dtype {
            Dtype::F16 => self.read(|word| f16::from_le_bytes(word).to_f32()),
            Dtype::BF16 => self.read(|word| bf16::from_le_bytes(word).to_f32()),
            Dtype::F32 => self.read(f32::from_le_bytes),
            Dtype::F64 => self.read(|word| f64::from_le_bytes(word) as f32),
            _ => None,
        }
    }

    /// Values as `f32`: those of `F32` that lie in the file as a tensor lies in memory stay there, others are converted, and
    /// their part of the file is given back to the system. `None` where [`floats`](Self::floats) has none.
    pub(crate) fn data(&self) -> Option<TensorData> {
        let bytes = match self.in_place() {
            Some(bytes) => bytes,
            None => {
                let values = self.floats()?;
                self.release();
                Bytes::from_elems(values)
            }
        };
        Some(TensorData::from_bytes(
            bytes,
            self.shape.clone(),
            DType::F32,
        ))
    }

    /// The file's own bytes, if they are what `f32` is in memory, in order and aligned.
    fn in_place(&self) -> Option<Bytes> {
        let plain = self.dtype == Dtype::F32
            && cfg!(target_endian = "little")
            && contiguous_strides(&self.shape)? == self.strides;
        let range = self.range()?;
        let aligned = self
            .file
            .bytes()
            .get(range.clone())?
            .as_ptr()
            .align_offset(align_of::<f32>())
            == 0;
        if !plain || !aligned || range.is_empty() {
            return None;
        }
        self.file.shared(range)
    }

    /// Values of `I32` or `I64`; `None` if they are of another type, or one does not fit `i32`.
    pub(crate) fn integers(&self) -> Option<Vec<i32>> {
        match self.dtype {
            Dtype::I32 => self.read(i32::from_le_bytes),
            Dtype::I64 => self
                .read(|word| i32::try_from(i64::from_le_bytes(word)).ok())?
                .into_iter()
                .collect(),
            _ => None,
        }
    }

    /// Gives the file's pages back; see [`MappedFile::release`].
    pub(crate) fn release(&self) {
        if let Some(range) = self.range() {
            self.file.release(range);
        }
    }

    fn element(&self) -> Option<usize> {
        let bits = self.dtype.bitsize();
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// The elements in the order of the indices.
    fn read<const N: usize, T>(&self, convert: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
        let bytes = self.file.bytes().get(self.range()?)?;
        let (words, _) = bytes.as_chunks::<N>();
        if contiguous_strides(&self.shape)? == self.strides || self.len() == 0 {
            return Some(words.iter().map(|&word| convert(word)).collect());
        }
        let mut values = Vec::with_capacity(self.len());
        let mut index = vec![0usize; self.shape.len()];
        let mut at = 0usize;
        loop {
            values.push(convert(*words.get(at)?));
            // To the next index, the last dimension first, as an odometer turns.
            let mut turned = true;
            for ((index, &size), &stride) in
                index.iter_mut().zip(&self.shape).zip(&self.strides).rev()
            {
                *index += 1;
                at += stride;
                if *index < size {
                    turned = false;
                    break;
                }
                at -= *index * stride;
                *index = 0;
            }
            if turned {
                return Some(values);
            }
        }
    }
}

fn contiguous_strides(shape: &[usize]) -> Option<Vec<usize>> {
    let mut strides = vec![1usize; shape.len()];
    let mut step = 1usize;
    for (stride, &size) in strides.iter_mut().zip(shape).rev() {
        *stride = step;
        step = step.checked_mul(size.max(1))?;
    }
    Some(strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers 0, 1, 2, .. as a file of `F32`.
    fn file(count: usize) -> (tempfile::TempDir, Arc<MappedFile>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("numbers");
        let bytes: Vec<u8> = (0..count).flat_map(|n| (n as f32).to_le_bytes()).collect();
        std::fs::write(&path, bytes).unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        (folder, file)
    }

    #[test]
    fn views_read_the_elements_they_show() {
        let (_folder, file) = file(6);
        let matrix = StoredTensor::contiguous(file.clone(), Dtype::F32, 0, vec![2, 3]).unwrap();
        assert_eq!(matrix.floats().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let turned = matrix.transposed().unwrap();
        assert_eq!(turned.shape(), [3, 2]);
        assert_eq!(turned.floats().unwrap(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let row = matrix.rows(1..2).unwrap();
        assert_eq!(row.floats().unwrap(), [3.0, 4.0, 5.0]);
        assert_eq!(matrix.part_of(&matrix), Some(Part::Whole));
        assert_eq!(turned.part_of(&matrix), Some(Part::Transposed));
        assert_eq!(row.part_of(&matrix), Some(Part::Rows(1..2)));
        assert_eq!(
            turned.rows(1..3).unwrap().floats().unwrap(),
            [1.0, 4.0, 2.0, 5.0]
        );
        assert!(matrix.rows(1..3).is_none());
        let conv = StoredTensor::contiguous(file.clone(), Dtype::F32, 0, vec![2, 3, 1, 1]).unwrap();
        assert_eq!(conv.pointwise().unwrap().shape(), [2, 3]);
        let wide = StoredTensor::contiguous(file, Dtype::F32, 0, vec![1, 1, 3, 1]).unwrap();
        assert!(wide.pointwise().is_none());
    }

    #[test]
    fn a_broadcast_scalar_and_an_empty_tensor_are_read() {
        let (_folder, file) = file(2);
        let tensor = |start, shape: &[usize], strides: &[usize]| {
            StoredTensor::strided(
                file.clone(),
                Dtype::F32,
                start,
                shape.to_vec(),
                strides.to_vec(),
            )
        };
        let repeated = tensor(4, &[2, 2], &[0, 0]).unwrap();
        assert_eq!(repeated.floats().unwrap(), [1.0; 4]);
        assert_eq!(tensor(4, &[], &[]).unwrap().floats().unwrap(), [1.0]);
        let empty = tensor(0, &[0, 3], &[3, 1]).unwrap();
        assert!(empty.floats().unwrap().is_empty());
        assert!(tensor(4, &[2], &[1]).is_none());
        assert!(tensor(0, &[usize::MAX, 2], &[1, 1]).is_none());
    }

    #[test]
    fn values_in_order_stay_in_the_file_and_others_are_copied() {
        let (_folder, file) = file(6);
        let bytes = file.bytes().as_ptr();
        let matrix = StoredTensor::contiguous(file.clone(), Dtype::F32, 4, vec![1, 3]).unwrap();
        let data = matrix.data().unwrap();
        assert_eq!(data.as_slice::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(data.as_bytes().as_ptr(), bytes.wrapping_add(4));
        let turned = StoredTensor::contiguous(file.clone(), Dtype::F32, 0, vec![2, 3]).unwrap();
        let turned = turned.transposed().unwrap();
        let copied = turned.data().unwrap();
        assert_eq!(copied.shape().to_vec(), [3, 2]);
        let values = [0.0, 3.0, 1.0, 4.0, 2.0, 5.0];
        assert_eq!(copied.as_slice::<f32>().unwrap(), values);
        // What was given back can be read again.
        assert_eq!(turned.data().unwrap().as_slice::<f32>().unwrap(), values);
        let halves = StoredTensor::contiguous(file.clone(), Dtype::F16, 0, vec![2]).unwrap();
        assert_eq!(halves.data().unwrap().as_slice::<f32>().unwrap(), [0.0; 2]);
        let odd = StoredTensor::contiguous(file, Dtype::F32, 2, vec![1]).unwrap();
        let expected = f32::from_le_bytes([0, 0, 0, 0]);
        assert_eq!(odd.data().unwrap().as_slice::<f32>().unwrap(), [expected]);
    }

    #[test]
    fn what_is_written_to_values_of_a_file_does_not_reach_the_file() {
        let (_folder, file) = file(3);
        let tensor = StoredTensor::contiguous(file.clone(), Dtype::F32, 0, vec![3]).unwrap();
        let mut data = tensor.data().unwrap();
        data.as_mut_slice::<f32>().unwrap().fill(7.0);
        assert_eq!(data.as_slice::<f32>().unwrap(), [7.0; 3]);
        assert_eq!(tensor.floats().unwrap(), [0.0, 1.0, 2.0]);
        // The file stays mapped as long as there are values in it.
        let data = tensor.data().unwrap();
        drop((tensor, file));
        assert_eq!(data.as_slice::<f32>().unwrap(), [0.0, 1.0, 2.0]);
    }
}
