//! What becomes of an address space's records where iommufd says that nothing is there, and after the last handle.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use nix::errno::Errno;

use super::context::Iommufd;
use super::ioas::{Ioas, Keeps};
use crate::batch::{Batch, BatchError};
use crate::dropper::settle;
use crate::fake_kernel::{self, Call};
use crate::locked::lock;
use crate::space_test::{PAGE, Scene, Space, range};
use crate::vfio::Device;
use crate::{Error, ErrorCode, Range, Result};

impl Space for Ioas {
    const MAP: Call = Call::IoasMap;
    const UNMAP: Call = Call::IoasUnmap;
    const NAMES_MAPPINGS: bool = true;

    fn fake() -> Self {
        Self::with_id(&Iommufd::fake(), 1)
    }

    fn map(&self, batch: Batch) -> Result<(), BatchError> {
        self.map(batch)
    }

    fn unmap(&self, ranges: &[Range], all: bool) -> Vec<(usize, Error)> {
        self.unmap(ranges, all)
    }

    fn unmap_all(&self) -> Result<()> {
        self.inner.unmap_all()
    }

    fn count(&self) -> usize {
        self.mapping_count()
    }
}

#[test]
fn an_unmap_all_that_finds_nothing_releases_every_record() {
    let scene = Scene::<Ioas>::new();
    scene.map(0, 1);
    fake_kernel::expect([(Call::IoasUnmap, Err(Errno::ENOENT))]);
    scene.space.inner.unmap_all().unwrap();
    assert_eq!(scene.space.mapping_count(), 0);
    assert!(!scene.is_leased(0));
}

#[test]
fn the_last_handle_of_an_address_space_releases_the_bars_whatever_size_the_kernel_reports() {
    let scene = Scene::<Ioas>::new();
    let device = Device::fake(&[0; 256], false);
    let bar = device.inner().begin_mapping().unwrap();
    let mut state = lock(&scene.space.inner.state);
    let mut gone = Vec::new();
    state
        .mappings
        .insert(range(0, 2), Keeps::Bar(bar), &mut gone);
    assert!(gone.is_empty());
    scene.space.inner.publish_count(&state);
    drop(state);
    // What an attached device keeps, without the handle.
    let attached = Arc::clone(&scene.space.inner);
    assert_eq!(device.close().unwrap_err().code(), ErrorCode::DeviceInUse);
    fake_kernel::expect([(Call::IoasUnmap, Ok(PAGE))]);
    drop(scene.space);
    settle();
    device.close().unwrap();
    drop(attached);
}
