//! Reservations and their leases.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64ArraySlice, ClassInstance};
use napi_derive::napi;
use peerdma_core::Result;
use peerdma_core::memory::{AddressSpaceReservation, FilePart, Lease, MemoryFile};

use crate::batch::{FILE_INDEX_SHIFT, NativeFailure, cloned, failure, file_number};
use crate::bytes::Bytes;
use crate::error::{closed, invalid, or_throw};
use crate::memory::{NativeMemoryFile, NativePrivateMemory};
use crate::numbers::{Index, MAX_SAFE, U64};
use crate::task::Work;

/// Reserved address space. JavaScript refers to its leases by number; they end with this object. IOMMU mappings have
/// their own leases.
//
// No method takes `&mut self`: Node-API keeps the object borrowed while a call runs on a worker thread, and rejects
// such a method meanwhile. Only JavaScript's own thread accesses the cells, and never across a call into JavaScript.
#[napi]
pub struct NativeReservation {
    reservation: RefCell<Option<AddressSpaceReservation>>,
    length: u64,
    leases: RefCell<BTreeMap<u64, Lease>>,
    next_lease: Cell<u64>,
}

impl NativeReservation {
    pub(crate) fn reservation(&self) -> Result<AddressSpaceReservation> {
        self.reservation
            .borrow()
            .clone()
            .ok_or_else(|| closed("reservation"))
    }

    /// Uses the lease of that number.
    fn with_lease(&self, id: u64, act: impl FnOnce(&Lease) -> Result<()>) -> Result<()> {
        let leases = self.leases.borrow();
        let lease = leases
            .get(&id)
            .ok_or_else(|| invalid(format!("no lease {id}")))?;
        act(lease)
    }
}

/// Reads pairs of offset and length.
pub(crate) fn pairs(words: &[u64]) -> Result<Vec<(u64, u64)>> {
    let (pairs, rest) = words.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(invalid("ranges must be pairs of offset and length"));
    }
    Ok(pairs
        .iter()
        .map(|[offset, length]| (*offset, *length))
        .collect())
}

/// A part's flags: this process can write it; it requests transparent huge pages.
const WRITABLE: u64 = 1;
const TRANSPARENT_HUGE: u64 = 2;

fn file_parts(
    files: &[ClassInstance<'_, NativeMemoryFile>],
    words: &[u64],
) -> Result<(Vec<MemoryFile>, Vec<FilePart>)> {
    let (groups, rest) = words.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid(
            "parts must consist of offset, length, flags and offset in the file",
        ));
    }
    let mut parts = Vec::with_capacity(groups.len());
    for [offset, length, flags, file_offset] in groups {
        let (file_index, kind) = (
            flags >> FILE_INDEX_SHIFT,
            flags & ((1 << FILE_INDEX_SHIFT) - 1),
        );
        if kind & !(WRITABLE | TRANSPARENT_HUGE) != 0 {
            return Err(invalid(format!("unknown flags {flags:#x} for {offset:#x}")));
        }
        parts.push(FilePart {
            offset: *offset,
            length: *length,
            file_offset: *file_offset,
            file: file_number(file_index, files.len())?,
            writable: kind & WRITABLE != 0,
            transparent_huge: kind & TRANSPARENT_HUGE != 0,
        });
    }
    Ok((cloned(files)?, parts))
}

#[napi]
impl NativeReservation {
    /// Reserves `2^addressWidth` bytes.
    #[napi(constructor)]
    pub fn new(env: &Env, address_width: Index) -> napi::Result<Self> {
        or_throw(env, || {
            let reservation = AddressSpaceReservation::new(address_width.as_u32("addressWidth")?)?;
            let length = reservation.length();
            Ok(Self {
                reservation: RefCell::new(Some(reservation)),
                length,
                leases: RefCell::default(),
                next_lease: Cell::new(1),
            })
        })
    }

    /// The length in bytes.
    #[napi(getter)]
    pub fn length(&self) -> U64 {
        U64(self.length)
    }

    /// Maps part of a file.
    #[napi]
    #[allow(clippy::too_many_arguments, reason = "those of the core")]
    pub fn map_file(
        &self,
        env: &Env,
        offset: U64,
        length: U64,
        file: &NativeMemoryFile,
        file_offset: U64,
        writable: bool,
        transparent_huge_pages: bool,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.reservation()?.map_file(
                offset.0,
                length.0,
                file.file()?,
                file_offset.0,
                writable,
                transparent_huge_pages,
            )
        })
    }

    /// Maps parts of files, one after another. A part is four words: offset, length, flags (bit 0: writable; bit 1:
    /// transparent huge pages; from bit 32 on: the index in `files`), and the offset in the file. Returns the first
    /// part that failed, or `null`; the parts before it are mapped then.
    #[napi]
    pub fn map_files(
        &self,
        env: &Env,
        files: Vec<ClassInstance<'_, NativeMemoryFile>>,
        parts: BigUint64ArraySlice<'_>,
    ) -> napi::Result<Option<NativeFailure>> {
        or_throw(env, || {
            let reservation = self.reservation()?;
            let (files, parts) = file_parts(&files, &parts)?;
            Ok(reservation.map_files(&files, &parts).err().map(failure))
        })
    }

    /// As `mapFiles`, on a worker thread.
    #[napi(ts_return_type = "Promise<NativeFailure | null>")]
    pub fn map_files_async(
        &self,
        env: &Env,
        files: Vec<ClassInstance<'_, NativeMemoryFile>>,
        parts: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<Work<Option<NativeFailure>, Option<NativeFailure>>>> {
        or_throw(env, || {
            let reservation = self.reservation()?;
            let (files, parts) = file_parts(&files, &parts)?;
            let map = move || Ok(reservation.map_files(&files, &parts).err().map(failure));
            Ok(Work::make(map, std::convert::identity))
        })
    }

    /// Maps part of private memory.
    #[napi]
    pub fn map_private(
        &self,
        env: &Env,
        offset: U64,
        length: U64,
        memory: &NativePrivateMemory,
        memory_offset: U64,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.reservation()?
                .map_private(offset.0, length.0, memory.memory()?, memory_offset.0)
        })
    }

    /// Unmaps a range.
    #[napi]
    pub fn unmap(&self, env: &Env, offset: U64, length: U64) -> napi::Result<()> {
        or_throw(env, || self.reservation()?.unmap(offset.0, length.0))
    }

    /// Checks ranges, given as pairs of offset and length, for gaps and faults them in.
    #[napi]
    pub fn ensure_mapped(&self, env: &Env, ranges: BigUint64ArraySlice<'_>) -> napi::Result<()> {
        or_throw(env, || self.reservation()?.ensure_mapped(&pairs(&ranges)?))
    }

    /// As `ensureMapped`, on a worker thread.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn ensure_mapped_async(
        &self,
        env: &Env,
        ranges: BigUint64ArraySlice<'_>,
    ) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let reservation = self.reservation()?;
            let ranges = pairs(&ranges)?;
            Ok(Work::run(move || reservation.ensure_mapped(&ranges)))
        })
    }

    /// Leases ranges, given as pairs of offset and length: all or none. Returns the number of the first lease; the
    /// others have the next numbers.
    #[napi]
    pub fn lease(&self, env: &Env, ranges: BigUint64ArraySlice<'_>) -> napi::Result<Index> {
        or_throw(env, || {
            let reservation = self.reservation()?;
            let leases = reservation.lease_all(&pairs(&ranges)?)?;
            let first = self.next_lease.get();
            let next = u64::try_from(leases.len())
                .ok()
                .and_then(|count| first.checked_add(count));
            let next = next
                .filter(|next| *next <= MAX_SAFE)
                .ok_or_else(|| invalid("out of lease numbers"))?;
            self.next_lease.set(next);
            self.leases.borrow_mut().extend((first..).zip(leases));
            Ok(Index(first))
        })
    }

    /// Releases leases of consecutive numbers: all, or none if one does not exist.
    #[napi]
    pub fn release_leases(&self, env: &Env, first: Index, count: Index) -> napi::Result<()> {
        or_throw(env, || {
            let end = first.0.saturating_add(count.0);
            let mut leases = self.leases.borrow_mut();
            let found = leases.range(first.0..end).count();
            if u64::try_from(found) != Ok(count.0) {
                return Err(invalid(format!(
                    "of the leases {}..{end} only {found} exist",
                    first.0
                )));
            }
            for id in first.0..end {
                leases.remove(&id);
            }
            Ok(())
        })
    }

    /// Fills `into`, from `offset` bytes after the start of a lease.
    #[napi]
    pub fn lease_read(
        &self,
        env: &Env,
        id: Index,
        offset: U64,
        mut into: Bytes,
    ) -> napi::Result<()> {
        or_throw(env, || {
            self.with_lease(id.0, |lease| lease.read(offset.0, into.sink()))
        })
    }

    /// Writes `from` at `offset` bytes after the start of a lease.
    #[napi]
    pub fn lease_write(&self, env: &Env, id: Index, offset: U64, from: Bytes) -> napi::Result<()> {
        or_throw(env, || {
            self.with_lease(id.0, |lease| lease.write(offset.0, from.source()))
        })
    }

    /// Unmaps everything and releases the address space; fails while leases exist.
    #[napi]
    pub fn close(&self, env: &Env) -> napi::Result<()> {
        or_throw(env, || {
            if let Ok(reservation) = self.reservation() {
                reservation.close()?;
            }
            self.reservation.take();
            Ok(())
        })
    }

    /// Unmaps everything on a worker thread. Keeps the address space until `close` or the end of this object.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close_async(&self, env: &Env) -> napi::Result<AsyncTask<Work>> {
        or_throw(env, || {
            let reservation = self.reservation()?;
            Ok(Work::run(move || reservation.close()))
        })
    }
}
