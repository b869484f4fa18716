//! A file that is mapped in a reservation.

use super::file::MemoryFile;
use crate::Result;
use crate::vfio::DeviceMapping;

/// A file as a mapping in a reservation uses it: pieces of one mapping share it.
#[derive(Debug)]
pub(crate) struct PlacedFile {
    pub(crate) file: MemoryFile,
    _mapping: Option<DeviceMapping>,
}

impl PlacedFile {
    /// Registers a mapping of `file` while this exists.
    pub(crate) fn new(file: &MemoryFile) -> Result<Self> {
        let mapping = file.begin_mapping()?;
        Ok(Self {
            file: file.clone(),
            _mapping: mapping,
        })
    }
}
