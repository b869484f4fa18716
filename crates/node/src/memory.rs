//! Memory files and private memory.

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, Unknown};
use napi_derive::napi;
use peerdma_core::Result;
use peerdma_core::memory::{FilePool, HugePages, MemoryFile, PrivateMemory};

use crate::batch::{NativeFailure, failures};
use crate::bytes::Bytes;
use crate::error::{closed, or_throw};
use crate::numbers::{Fd, Index, U64};
use crate::reservation::pairs;
use crate::task::Work;
use crate::view::{NativeFileBlock, array_buffer};

/// Ranges of memory that are discarded on a worker thread.
type DiscardTask = Work<Vec<NativeFailure>, Vec<NativeFailure>>;

fn discard_task(
    ranges: &[u64],
    discard: impl Fn(u64, u64) -> Result<()> + Send + 'static,
) -> Result<AsyncTask<DiscardTask>> {
    let ranges = pairs(ranges)?;
    let run = move || {
        let all = ranges.into_iter().enumerate();
        let failed = all.filter_map(|(index, (offset, length))| {
            discard(offset, length).err().map(|error| (index, error))
        });
        Ok(failures(failed.collect()))
    };
    Ok(Work::make(run, std::convert::identity))
}

/// Memory of a file descriptor.
#[napi]
pub struct NativeMemoryFile {
    file: Option<MemoryFile>,
}

impl NativeMemoryFile {
    pub(crate) const fn new(file: MemoryFile) -> Self {
        Self { file: Some(file) }
    }

    pub(crate) fn file(&self) -> Result<&MemoryFile> {
        self.file.as_ref().ok_or_else(|| closed("memory file"))
    }
}

#[napi]
impl NativeMemoryFile {
    /// Creates a memfd of zeros. `hugePageShift` is 0, 21 (2 MiB) or 30 (1 GiB).
    #[napi(factory)]
    pub fn create(
        env: &Env,
        length: U64,
        name: String,
        huge_page_shift: Index,
    ) -> napi::Result<Self> {
        or_throw(env, || {
            let huge_pages = HugePages::from_shift(huge_page_shift.as_u32("hugePageShift")?)?;
            MemoryFile::create(length.0, &name, huge_pages).map(Self::new)
        })
    }

    /// Duplicates a descriptor; the caller still owns the original.
    #[napi(factory)]
    pub fn from_fd(env: &Env, fd: Fd) -> napi::Result<Self> {
        or_throw(env, || MemoryFile::from_fd(fd.0).map(Self::new))
    }

    /// The number of its own descriptor; fails for a device.
    #[napi(getter)]
    pub fn fd(&self, env: &Env) -> napi::Result<i32> {
        or_throw(env, || self.file()?.fd())
    }

    /// The offset of this part in its pool's file; 0 for a file of its own.
    #[napi(getter)]
    pub fn part_offset(&self, env: &Env) -> napi::Result<U64> {
        or_throw(env, || Ok(U64(self.file()?.part_offset())))
    }

    /// Whether this is a VFIO device's file.
    #[napi(getter)]
    pub fn is_device(&self, env: &Env) -> napi::Result<bool> {
        or_throw(env, || Ok(self.file()?.is_device()))
    }

    /// The present length in bytes; 2^64 - 1 for a device.
    #[napi]
    pub fn length(&self, env: &Env) -> napi::Result<U64> {
        or_throw(env, || self.file()?.length().map(U64))
    }

    /// Whether the file has memory up to the byte before `end` now.
    #[napi]
    pub fn is_present(&self, env: &Env, end: U64) -> napi::Result<bool> {
        or_throw(env, || self.file()?.is_present(end.0))
    }

    /// The page size in bytes.
    #[napi]
    pub fn page_size(&self, env: &Env) -> napi::Result<U64> {
        or_throw(env, || Ok(U64(self.file()?.page_size())))
    }

    /// Fills `into` from `offset`.
    #[napi]
    pub fn read(&self, env: &Env, offset: U64, mut into: Bytes) -> napi::Result<()> {
        or_throw(env, || self.file()?.read(offset.0, into.sink()))
    }

    /// Writes `from` at `offset`; never extends the file.
    #[napi]
    pub fn write(&self, env: &Env, offset: U64, from: Bytes) -> napi::Result<()> {
        or_throw(env, || self.file()?.write(offset.0, from.source()))
    }

    /// Returns a part of the file as memory, which outlives this handle; only for a file of `create`.
    #[napi(ts_return_type = "ArrayBuffer")]
    pub fn view<'env>(
        &self,
        env: &'env Env,
        offset: U64,
        length: U64,
    ) -> napi::Result<Unknown<'env>> {
        let view = or_throw(env, || self.file()?.view(offset.0, length.0))?;
        array_buffer(env, view)
    }

    /// Returns the aligned block of `size` bytes around an offset, cut at the end of the file. Returns `null` if the
    /// bytes can disappear.
    #[napi]
    pub fn block_around(
        &self,
        env: &Env,
        offset: U64,
        size: U64,
    ) -> napi::Result<Option<NativeFileBlock>> {
        or_throw(env, || {
            let around = self.file()?.view_around(offset.0, size.0)?;
            Ok(around.map(NativeFileBlock::new))
        })
    }

    /// Allocates the pages of a part of the file, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn fault_in(
        &self,
        env: &Env,
        offset: U64,
        length: U64,
        transparent_huge_pages: bool,
    ) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let file = self.file()?.clone();
            Ok(Work::run(move || {
                file.fault_in(offset.0, length.0, transparent_huge_pages)
            }))
        })
    }

    /// Discards ranges, given as pairs of offset and length, on a worker thread. Returns the failures: the other ranges
    /// are discarded.
    #[napi(ts_return_type = "Promise<NativeFailure[]>")]
    pub fn discard(
        &self,
        env: &Env,
        ranges: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<DiscardTask>> {
        or_throw(env, || {
            let file = self.file()?.clone();
            discard_task(&ranges, move |offset, length| file.discard(offset, length))
        })
    }

    /// Allocates its pages from one NUMA node only.
    #[napi]
    pub fn bind_to_node(&self, env: &Env, node: Index) -> napi::Result<()> {
        or_throw(env, || self.file()?.bind_to_node(node.as_u32("node")?))
    }

    /// Closes the handle. Mappings keep the file open.
    #[napi]
    pub fn close(&mut self) {
        self.file = None;
    }
}

/// A pool of memory pieces in one file.
#[napi]
pub struct NativeFilePool {
    pool: FilePool,
}

#[napi]
impl NativeFilePool {
    /// Creates a pool of memfds of that name.
    #[napi(constructor)]
    pub fn new(name: String) -> Self {
        Self {
            pool: FilePool::new(&name),
        }
    }

    /// Returns a piece of `length` zero bytes, from `partOffset` of the file.
    #[napi]
    pub fn take(&self, env: &Env, length: U64) -> napi::Result<NativeMemoryFile> {
        or_throw(env, || {
            let file = self.pool.take(length.0)?;
            Ok(NativeMemoryFile::new(file))
        })
    }
}

/// Anonymous private memory.
#[napi]
pub struct NativePrivateMemory {
    memory: Option<PrivateMemory>,
    length: u64,
}

impl NativePrivateMemory {
    pub(crate) fn memory(&self) -> Result<&PrivateMemory> {
        self.memory.as_ref().ok_or_else(|| closed("private memory"))
    }
}

#[napi]
impl NativePrivateMemory {
    /// Reserves `length` zero bytes.
    #[napi(constructor)]
    pub fn new(env: &Env, length: U64, transparent_huge_pages: bool) -> napi::Result<Self> {
        or_throw(env, || {
            let memory = PrivateMemory::new(length.0, transparent_huge_pages)?;
            Ok(Self {
                memory: Some(memory),
                length: length.0,
            })
        })
    }

    /// The length in bytes.
    #[napi(getter)]
    pub fn length(&self) -> U64 {
        U64(self.length)
    }

    /// Fills `into` from `offset`, wherever the pages are.
    #[napi]
    pub fn read(&self, env: &Env, offset: U64, mut into: Bytes) -> napi::Result<()> {
        or_throw(env, || self.memory()?.read(offset.0, into.sink()))
    }

    /// Writes `from` at `offset`, wherever the pages are.
    #[napi]
    pub fn write(&self, env: &Env, offset: U64, from: Bytes) -> napi::Result<()> {
        or_throw(env, || self.memory()?.write(offset.0, from.source()))
    }

    /// Allocates the pages of a part, on a worker thread. The part must not be mapped.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn fault_in(&self, env: &Env, offset: U64, length: U64) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let memory = self.memory()?.clone();
            Ok(Work::run(move || memory.fault_in(offset.0, length.0)))
        })
    }

    /// Discards ranges that are not mapped, as `discard` of a file does.
    #[napi(ts_return_type = "Promise<NativeFailure[]>")]
    pub fn discard(
        &self,
        env: &Env,
        ranges: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<DiscardTask>> {
        or_throw(env, || {
            let memory = self.memory()?.clone();
            discard_task(&ranges, move |offset, length| {
                memory.discard(offset, length)
            })
        })
    }

    /// Allocates its pages from one NUMA node only.
    #[napi]
    pub fn bind_to_node(&self, env: &Env, node: Index) -> napi::Result<()> {
        or_throw(env, || self.memory()?.bind_to_node(node.as_u32("node")?))
    }

    /// Closes the handle. Mappings in a reservation keep their memory.
    #[napi]
    pub fn close(&mut self) {
        self.memory = None;
    }
}
