//! The bytes of a pickle, read one after the other.

use super::PickleError;

#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn broken(&self, expected: &'static str, found: impl Into<String>) -> PickleError {
        PickleError::Broken {
            offset: self.at,
            expected,
            found: found.into(),
        }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], PickleError> {
        let end = self.at.checked_add(count);
        let Some(bytes) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.broken("more bytes", "the end of the pickle"));
        };
        self.at += count;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let bytes = self.take(N)?;
        <[u8; N]>::try_from(bytes).map_err(|_| self.broken("more bytes", "the end of the pickle"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, PickleError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, PickleError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, PickleError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, PickleError> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn length_u8(&mut self) -> Result<usize, PickleError> {
        self.u8().map(usize::from)
    }

    pub(super) fn length_u32(&mut self) -> Result<usize, PickleError> {
        let length = self.u32()?;
        usize::try_from(length).map_err(|_| self.broken("a length", length.to_string()))
    }

    pub(super) fn length_u64(&mut self) -> Result<usize, PickleError> {
        let length = self.array().map(u64::from_le_bytes)?;
        usize::try_from(length).map_err(|_| self.broken("a length", length.to_string()))
    }

    pub(super) fn text(&mut self, length: usize) -> Result<&'a str, PickleError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.broken("UTF-8", "other bytes"))
    }

    /// Text up to the end of the line, which is read, too.
    pub(super) fn line(&mut self) -> Result<&'a str, PickleError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.broken("the end of a line", "the end of the pickle"));
        };
        let text = self.text(length)?;
        self.take(1)?;
        Ok(text)
    }
}
