//! Child processes inherit no guest memory. The kernel reports for each mapping whether `fork` copies it (`dc` among
//! the `VmFlags` in `/proc/self/smaps`: it does not).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use nix::sys::mman::ProtFlags;

use super::{AddressSpaceReservation, HugePages, MemoryFile, PrivateMemory, sys};

const PAGE: u64 = 4096;
const WIDTH: u32 = 30;

/// Returns the kernel mappings in `start..start + length`, and those that a child process inherits.
fn mappings(start: usize, length: usize) -> (Vec<String>, Vec<String>) {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut all, mut copied) = (Vec::new(), Vec::new());
    let mut current = None;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let Some(mapping) = current.take() else {
                continue;
            };
            if !flags.split(' ').any(|flag| flag == "dc") {
                copied.push(String::clone(&mapping));
            }
            all.push(mapping);
        } else if let Some((first, end)) = line.split(' ').next().unwrap().split_once('-')
            && let (Ok(first), Ok(end)) = (
                usize::from_str_radix(first, 16),
                usize::from_str_radix(end, 16),
            )
            && first < start.saturating_add(length)
            && end > start
        {
            current = Some(line.to_owned());
        }
    }
    (all, copied)
}

fn stays_here(start: usize, length: u64, context: &str) -> usize {
    let (all, copied) = mappings(start, usize::try_from(length).unwrap());
    assert!(!all.is_empty(), "{context}: not mapped");
    assert!(copied.is_empty(), "{context}: {copied:#?}");
    all.len()
}

#[test]
fn a_child_process_inherits_no_reservation_and_no_private_memory() {
    let space = AddressSpaceReservation::new(WIDTH).unwrap();
    let base = usize::try_from(space.host_va(0, PAGE).unwrap()).unwrap();
    let check = |context: &str| stays_here(base, space.length(), context);
    let check_origin = |memory: &PrivateMemory, context: &str| {
        stays_here(
            memory.inner.origin_address(0).unwrap(),
            memory.length(),
            context,
        )
    };
    assert_eq!(check("empty"), 1);

    let file = MemoryFile::create(8 * PAGE, "kept", HugePages::None).unwrap();
    for writable in [true, false] {
        let at = if writable { 0 } else { 64 } * PAGE;
        space
            .map_file(at, 4 * PAGE, &file, 0, writable, true)
            .unwrap();
        check("a file");
        let joined = check("a file");
        space
            .map_file(at + 4 * PAGE, 4 * PAGE, &file, 4 * PAGE, writable, true)
            .unwrap();
        assert_eq!(
            check("more of the file"),
            joined,
            "the kernel merges both mappings"
        );
    }
    space.ensure_mapped(&[(0, 8 * PAGE)]).unwrap();
    check("faulted in");
    space.unmap(2 * PAGE, PAGE).unwrap();
    check("a hole in a file");

    let memory = PrivateMemory::new(8 * PAGE, true).unwrap();
    check_origin(&memory, "private memory");
    memory.write(0, &[1; 4096]).unwrap();
    space
        .map_private(32 * PAGE, 6 * PAGE, &memory, PAGE)
        .unwrap();
    space
        .map_private(128 * PAGE, PAGE, &memory, 7 * PAGE)
        .unwrap();
    space.ensure_mapped(&[(32 * PAGE, 6 * PAGE)]).unwrap();
    check("placed");
    check_origin(&memory, "private memory that is placed");
    space.unmap(34 * PAGE, PAGE).unwrap();
    check("a hole in private memory");
    check_origin(&memory, "private memory that is placed in part");
    space.close().unwrap();
    assert_eq!(check("closed"), 1, "the gaps merge");
    check_origin(&memory, "private memory after unmap");
}

#[test]
fn a_child_process_inherits_no_private_memory_after_a_failed_move() {
    use super::faults::{Call, clear, inject};
    let space = AddressSpaceReservation::new(WIDTH).unwrap();
    let base = usize::try_from(space.host_va(0, PAGE).unwrap()).unwrap();
    let memory = PrivateMemory::new(4 * PAGE, false).unwrap();
    for call in [Call::Move, Call::Cover] {
        space.map_private(0, 4 * PAGE, &memory, 0).unwrap();
        inject(call, 1);
        let _ = space.unmap(0, 4 * PAGE);
        clear();
        stays_here(base, space.length(), "the reservation");
        stays_here(
            memory.inner.origin_address(0).unwrap(),
            memory.length(),
            "origin",
        );
        let _ = space.unmap(0, 4 * PAGE);
    }
}

#[test]
fn a_child_process_inherits_no_refilled_hole() {
    let (page, prot) = (4096, ProtFlags::PROT_NONE);
    let at = sys::map_anonymous(3 * page, page, prot).unwrap();
    // SAFETY: mapped just now; nothing else refers to it.
    unsafe {
        sys::unmap(at + page, page).unwrap();
        assert!(sys::refill(at + page, page, prot));
    }
    assert_eq!(stays_here(at, 3 * PAGE, "refilled"), 1);
    // SAFETY: as above.
    unsafe { sys::unmap(at, 3 * page) }.unwrap();
}

#[test]
fn a_child_process_inherits_no_view() {
    let file = MemoryFile::create(2 * PAGE, "viewed", HugePages::None).unwrap();
    let view = file.view(0, 2 * PAGE).unwrap();
    stays_here(view.address(), 2 * PAGE, "a view");
}
