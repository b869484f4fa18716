//! iommufd and its address spaces.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::iommufd::{Ioas, Iommufd};
use peerdma_core::{Descriptor, Range, Result};

use crate::batch::{
    MapTask, NativeFailure, NativeMapFailure, UnmapTask, failures, map_failure, read_batch,
    read_ranges,
};
use crate::environment::finalize_handles;
use crate::error::{closed, or_throw};
use crate::memory::NativeMemoryFile;
use crate::numbers::{Fd, Index, U64, Words};
use crate::reservation::NativeReservation;
use crate::space::space_methods;
use crate::task::Work;

/// An open `/dev/iommu`.
#[napi(custom_finalize)]
pub struct NativeIommufd {
    iommufd: Option<Iommufd>,
}

finalize_handles!(NativeIommufd, NativeIoas);

impl NativeIommufd {
    pub(crate) fn iommufd(&self) -> Result<&Iommufd> {
        self.iommufd.as_ref().ok_or_else(|| closed("iommufd"))
    }
}

#[napi]
impl NativeIommufd {
    /// Opens `/dev/iommu`.
    #[napi(factory)]
    pub fn open(env: &Env) -> napi::Result<Self> {
        or_throw(env, || {
            Iommufd::open().map(|iommufd| Self {
                iommufd: Some(iommufd),
            })
        })
    }

    /// Duplicates the descriptor of an iommufd; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || {
            let iommufd = Iommufd::from_descriptor(Descriptor::duplicate(fd.0)?)?;
            Ok(Self {
                iommufd: Some(iommufd),
            })
        })
    }

    /// Whether the kernel maps files.
    #[napi(getter)]
    pub fn maps_files(&self, env: &Env) -> napi::Result<bool> {
        or_throw(env, || Ok(self.iommufd()?.maps_files()))
    }

    /// Creates an empty address space.
    #[napi]
    pub fn new_ioas(&self, env: &Env) -> napi::Result<NativeIoas> {
        or_throw(env, || {
            Ioas::new(self.iommufd()?).map(|space| NativeIoas { space })
        })
    }

    /// Closes the handle. Address spaces and devices keep the iommufd open.
    #[napi]
    pub fn close(&mut self) {
        self.iommufd = None;
    }
}

/// The present capabilities of an address space.
#[napi(object, object_from_js = false)]
pub struct NativeIoasInfo {
    /// The alignment of both ends of a mapping, in bytes.
    pub alignment: U64,
    /// Pairs of start and length.
    pub iova_ranges: Words,
}

/// An address space of iommufd.
#[napi(custom_finalize)]
pub struct NativeIoas {
    space: Ioas,
}

impl NativeIoas {
    pub(crate) const fn ioas(&self) -> &Ioas {
        &self.space
    }
}

#[napi]
impl NativeIoas {
    /// Returns its present capabilities.
    #[napi]
    pub fn info(&self, env: &Env) -> napi::Result<NativeIoasInfo> {
        or_throw(env, || {
            let info = self.space.info()?;
            Ok(NativeIoasInfo {
                alignment: U64(info.alignment),
                iova_ranges: Words::from_ranges(&info.iova_ranges),
            })
        })
    }
}

space_methods!(NativeIoas);
