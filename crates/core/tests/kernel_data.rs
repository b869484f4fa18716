//! Decodes the kernel's information about containers and regions: valid, damaged and hostile bytes.
//!
//! The rules (`kernel_data/rules.rs`) are those of the fuzz targets in `fuzz/`, whose corpus this test runs too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

#[path = "kernel_data/rules.rs"]
mod rules;
#[path = "kernel_data/structures.rs"]
mod structures;

use std::path::Path;

use peerdma_core::vfio::capabilities;
use proptest::prelude::*;
use rules::{Container, Region, check_capabilities, check_container, check_region};
use rules::{read_container, read_region};
use structures::{Capability, Layout, Parts, container, damage, damages, layout, parts, region};

/// The number of cases; Miri is a thousand times slower.
fn cases(count: u32) -> ProptestConfig {
    ProptestConfig::with_cases(if cfg!(miri) { count / 1000 } else { count })
}

/// Returns the value of the last capability of a kind, which takes precedence.
fn last<T>(caps: &[Capability], of: impl Fn(&Capability) -> Option<T>) -> Option<T> {
    caps.iter().rev().find_map(of)
}

fn expected_container(parts: &Parts) -> Container {
    let ranges = last(&parts.caps, |cap| match cap {
        Capability::Pairs(pairs) => Some(pairs.clone()),
        _ => None,
    });
    let mut iova: Vec<(u64, u64)> = ranges
        .unwrap_or_default()
        .iter()
        .map(|(start, length)| (*start, start + length.saturating_sub(1)))
        .collect();
    iova.sort_unstable();
    let dma_avail = last(&parts.caps, |cap| match cap {
        Capability::Number(number) => Some(*number),
        _ => None,
    });
    Container {
        page_sizes: parts.number,
        iova,
        dma_avail,
    }
}

fn expected_region(parts: &Parts) -> Region {
    let areas = last(&parts.caps, |cap| match cap {
        Capability::Pairs(pairs) => Some(pairs.clone()),
        _ => None,
    });
    let mut areas = areas.unwrap_or_else(|| vec![(0, parts.length)]);
    areas.retain(|(_, size)| *size > 0);
    areas.sort_unstable();
    if !parts.mappable {
        areas.clear();
    }
    Region {
        length: parts.length,
        file_offset: parts.number >> 8,
        access: (true, false),
        areas,
        msix: parts
            .caps
            .iter()
            .any(|cap| matches!(cap, Capability::Number(_))),
    }
}

proptest! {
    #![proptest_config(cases(4000))]

    /// Compares the reader of the rules with the parts of the structure.
    #[test]
    fn decodes_the_parts_of_valid_structures(parts in parts(), layout in layout()) {
        let bytes = container(&parts, &layout);
        prop_assert_eq!(read_container(&bytes), Some(expected_container(&parts)));
        check_container(&bytes);
        let bytes = region(&parts, &layout);
        prop_assert_eq!(read_region(&bytes), Some(Some(expected_region(&parts))));
        check_region(&bytes);
    }

    #[test]
    fn decodes_or_rejects_damaged_structures(parts in parts(), layout in layout(), hurts in damages()) {
        for make in [container, region] {
            let mut bytes = make(&parts, &layout);
            hurts.iter().for_each(|hurt| damage(&mut bytes, hurt));
            check_container(&bytes);
            check_region(&bytes);
            for first in [4, 24, 32] {
                check_capabilities(&bytes, first);
            }
        }
    }

    #[test]
    fn decodes_or_rejects_any_bytes(
        bytes in prop::collection::vec(prop_oneof![4 => 0_u8..96, 1 => any::<u8>()], 0..300),
        first in prop_oneof![0_u32..300, any::<u32>()],
    ) {
        check_container(&bytes);
        check_region(&bytes);
        check_capabilities(&bytes, first);
    }
}

#[test]
fn decodes_a_region_of_the_largest_length() {
    let parts = |length, offset: u64| Parts {
        length,
        number: offset << 8,
        mappable: true,
        caps: Vec::new(),
    };
    for (length, offset) in [(u64::MAX, 0), (1, (1 << 56) - 1), (u64::MAX >> 1, 1 << 40)] {
        let bytes = region(&parts(length, offset), &Layout::default());
        assert_eq!(
            read_region(&bytes).unwrap().unwrap().areas,
            [(0, length)],
            "{length:#x}"
        );
        check_region(&bytes);
    }
    check_region(&region(&parts(u64::MAX, 1), &Layout::default()));
    assert_eq!(
        read_region(&region(&parts(u64::MAX, 1), &Layout::default())),
        None
    );
}

/// A chain of a thousand headers that ends, and one of a million bytes that loops.
#[test]
fn long_chains_end() {
    let mut bytes = vec![0_u8; 24 + 8 * 1000];
    bytes[4] = 2;
    bytes[16] = 24;
    for index in 0..1000_usize {
        let next = if index == 999 { 0 } else { 32 + 8 * index };
        let at = 24 + 8 * index;
        bytes[at] = 9;
        bytes[at + 4..at + 8].copy_from_slice(&(next as u32).to_ne_bytes());
    }
    check_container(&bytes);
    assert!(read_container(&bytes).is_some());
    let last = bytes.len() - 4;
    bytes[last..].copy_from_slice(&24_u32.to_ne_bytes());
    check_container(&bytes);
    assert_eq!(read_container(&bytes), None);
    // Overlapping headers, each four bytes after the last: more than the structure has space for.
    let mut overlapping: Vec<u8> = (0..100_u32)
        .flat_map(|word| (4 * word).to_ne_bytes())
        .collect();
    overlapping[4] = 2;
    overlapping[16] = 24;
    let last = overlapping.len() - 4;
    overlapping[last..].fill(0);
    assert!(capabilities(&overlapping, 24).is_err());
    assert_eq!(capabilities(&overlapping, 4 * 60).unwrap().len(), 39);
    check_container(&overlapping);
    if !cfg!(miri) {
        let mut endless = [24, 0, 0, 0].repeat(1 << 18);
        endless[4] = 2;
        check_container(&endless);
        check_region(&endless);
    }
}

/// The corpus of interesting inputs found by fuzzing.
#[test]
fn decodes_or_rejects_the_fuzz_corpus() {
    if cfg!(miri) {
        return; // Reads many files; `decodes_or_rejects_any_bytes` is enough for Miri.
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for target in ["container_info", "region_info"] {
        let mut count = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            check_container(&bytes);
            check_region(&bytes);
            check_capabilities(&bytes, 24);
            count += 1;
        }
        assert!(count >= 8, "{target}: {count}");
    }
}
