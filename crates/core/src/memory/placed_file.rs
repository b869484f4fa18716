//! A file that is placed in a reservation.

use super::file::MemoryFile;
use crate::Result;
use crate::vfio::DeviceMapping;

/// A file as something placed in a reservation uses it: pieces of one placement share it.
#[derive(Debug)]
pub(crate) struct PlacedFile {
    pub(crate) file: MemoryFile,
    _mapping: Option<DeviceMapping>,
}

impl PlacedFile {
    /// Announces a mapping of `file` for as long as this lives.
    pub(crate) fn new(file: &MemoryFile) -> Result<Self> {
        let mapping = file.begin_mapping()?;
        Ok(Self {
            file: file.clone(),
            _mapping: mapping,
        })
    }
}
