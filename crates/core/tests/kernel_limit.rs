//! Failures of the kernel itself after the process has reached `vm.max_map_count`. The mappings were made without
//! charging the budget. This file is a process of its own, with one test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{PAGE, file, page_of, reservation};
use nix::errno::Errno;
use peerdma_core::ErrorCode;
use peerdma_core::memory::PrivateMemory;

/// Address space of another user of the process, split into as many mappings as necessary.
struct Filler {
    base: usize,
    pages: usize,
    cut: usize,
}

impl Filler {
    fn new(pages: usize) -> Self {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let length = pages * 4096;
        // SAFETY: without MAP_FIXED nothing is replaced.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        Self {
            base: base.expose_provenance(),
            pages,
            cut: 0,
        }
    }

    fn protect(&self, page: usize, prot: i32) -> bool {
        let at = std::ptr::with_exposed_provenance_mut(self.base + page * 4096);
        // SAFETY: the page is the filler's, and nobody uses it.
        unsafe { libc::mprotect(at, 4096, prot) == 0 }
    }

    /// Makes mappings up to the kernel's limit.
    fn fill(&mut self) {
        while 2 * self.cut + 1 < self.pages && self.protect(2 * self.cut + 1, libc::PROT_READ) {
            self.cut += 1;
        }
    }

    /// Releases two mappings each time.
    fn release(&mut self, times: usize) {
        for _ in 0..times {
            self.cut -= 1;
            assert!(self.protect(2 * self.cut + 1, libc::PROT_NONE));
        }
    }
}

fn check(memory: &PrivateMemory, context: &str) {
    for page in 0..4_u8 {
        let mut bytes = [0; 16];
        memory.read(u64::from(page) * PAGE, &mut bytes).unwrap();
        assert_eq!(bytes, [page + 1; 16], "{context}: page {page}");
    }
}

#[test]
fn private_memory_matches_its_records() {
    let allowed = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
    let allowed: usize = allowed.trim().parse().unwrap();
    if allowed > 200_000 {
        eprintln!("skipped: a vm.max_map_count of {allowed} takes too long to fill");
        return;
    }
    let (space, victim) = (reservation(), file(4));
    let mut filler = Filler::new(2 * allowed);
    filler.fill();
    assert!(filler.cut > allowed / 2 - 1_000);
    let (mut failed, mut still_mapped) = (0, 0);
    for room in 0..24 {
        let context = format!("room {room}");
        filler.release(40);
        let memory = PrivateMemory::new(4 * PAGE, false).unwrap();
        for page in 0..4_u8 {
            let offset = u64::from(page) * PAGE;
            memory.write(offset, &page_of(page + 1)).unwrap();
        }
        // A separate piece in the middle.
        space.map_private(0, PAGE, &memory, PAGE).unwrap();
        space.unmap(0, PAGE).unwrap();
        filler.fill();
        filler.release(room);
        let placed = space.map_private(16 * PAGE, 4 * PAGE, &memory, 0);
        filler.fill();
        check(&memory, &context);
        if let Err(error) = &placed {
            assert_eq!(
                (error.code(), error.errno()),
                (ErrorCode::System, Some(Errno::ENOMEM))
            );
            failed += 1;
            still_mapped += usize::from(error.message().contains("stays mapped"));
            filler.release(10);
            // Free pages of the reservation are not pages of the memory.
            for page in 16..20 {
                let taken = space.map_file(page * PAGE, PAGE, &victim, 0, true, false);
                let _ = memory.write(
                    (page - 16) * PAGE,
                    &page_of(u8::try_from(page).unwrap() - 15),
                );
                if taken.is_ok() {
                    let mut bytes = [9; 16];
                    victim.read(0, &mut bytes).unwrap();
                    assert_eq!(bytes, [0; 16], "{context}");
                }
            }
            check(&memory, &context);
            filler.fill();
        }
        // Near the limit, unmapping can fail too.
        filler.release(room / 2);
        let _ = space.unmap(0, 64 * PAGE);
        check(&memory, &context);
        filler.release(20);
        space.unmap(0, 64 * PAGE).unwrap();
        check(&memory, &context);
        memory.write(0, &page_of(1)).unwrap();
        filler.fill();
    }
    eprintln!("{failed} maps failed, {still_mapped} of them could not be rolled back");
    assert!(failed > 2, "{failed}");
}
