//! Structures in the kernel's layout, and damages to them.

use proptest::prelude::*;

/// A capability of either structure: pairs (id 1), a number or no data (3), or an unknown one.
#[derive(Debug, Clone)]
pub enum Capability {
    /// Starts and lengths: IOVA ranges, sparse areas.
    Pairs(Vec<(u64, u64)>),
    /// The number of mappings that can still be made. For a region: the MSI-X table can be mapped.
    Number(u32),
    /// An unknown capability with that many words.
    Unknown(u16, usize),
}

/// The parts of a structure.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The length of the region; its pairs lie within.
    pub length: u64,
    /// The page sizes; the upper bits are the region's offset in its file.
    pub number: u64,
    pub mappable: bool,
    /// The capabilities, in the order of the chain.
    pub caps: Vec<Capability>,
}

/// The layout of the capabilities.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// The order in memory: the capability with the lowest number is first.
    pub ranks: Vec<u32>,
    /// The number of empty words before each.
    pub gap: usize,
}

pub fn parts() -> impl Strategy<Value = Parts> {
    let cap = prop_oneof![
        3 => prop::collection::vec((0..1_u64 << 20, 0..1_u64 << 20), 0..6).prop_map(Capability::Pairs),
        2 => any::<u32>().prop_map(Capability::Number),
        1 => (prop_oneof![Just(0_u16), Just(2), 4..=u16::MAX], 0..5_usize)
            .prop_map(|(id, words)| Capability::Unknown(id, words)),
    ];
    let caps = prop::collection::vec(cap, 0..6);
    (1_u64 << 21..1 << 40, any::<u64>(), any::<bool>(), caps).prop_map(
        |(length, number, mappable, caps)| Parts {
            length,
            number,
            mappable,
            caps,
        },
    )
}

pub fn layout() -> impl Strategy<Value = Layout> {
    (prop::collection::vec(any::<u32>(), 6), 0..3_usize)
        .prop_map(|(ranks, gap)| Layout { ranks, gap })
}

/// Builds a `struct vfio_iommu_type1_info`. A range of length 0 contains one address here.
pub fn container(parts: &Parts, layout: &Layout) -> Vec<u8> {
    let pairs = |(start, length): &(u64, u64)| (*start, start + length.saturating_sub(1));
    let (first, caps) = chain(24, &parts.caps, layout, pairs);
    let flags = 1 | if first > 0 { 2 } else { 0 };
    let mut bytes = words(&[0, flags]);
    bytes.extend(parts.number.to_ne_bytes());
    bytes.extend(words(&[first, 0]));
    bytes.extend(caps);
    with_argsz(bytes)
}

/// Builds a `struct vfio_region_info`.
pub fn region(parts: &Parts, layout: &Layout) -> Vec<u8> {
    let (first, caps) = chain(32, &parts.caps, layout, |pair| *pair);
    let flags = 1 | if parts.mappable { 4 } else { 0 } | if first > 0 { 8 } else { 0 };
    let mut bytes = words(&[0, flags, 7, first]);
    bytes.extend(parts.length.to_ne_bytes());
    bytes.extend((parts.number >> 8).to_ne_bytes());
    bytes.extend(caps);
    with_argsz(bytes)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn with_argsz(mut bytes: Vec<u8>) -> Vec<u8> {
    let argsz = bytes.len() as u32;
    bytes[..4].copy_from_slice(&argsz.to_ne_bytes());
    bytes
}

/// Returns the offset of the first capability, and the bytes from `base` on.
fn chain(
    base: usize,
    caps: &[Capability],
    layout: &Layout,
    pair: impl Fn(&(u64, u64)) -> (u64, u64),
) -> (u32, Vec<u8>) {
    let payloads: Vec<(u16, Vec<u8>)> = caps
        .iter()
        .map(|cap| match cap {
            Capability::Pairs(pairs) => {
                let mut bytes = words(&[pairs.len() as u32, 0]);
                for (a, b) in pairs.iter().map(&pair) {
                    bytes.extend(a.to_ne_bytes());
                    bytes.extend(b.to_ne_bytes());
                }
                (1, bytes)
            }
            Capability::Number(number) => (3, words(&[*number])),
            Capability::Unknown(id, length) => (*id, words(&vec![u32::MAX; *length])),
        })
        .collect();
    let mut order: Vec<usize> = (0..caps.len()).collect();
    order.sort_by_key(|index| layout.ranks.get(*index));
    let (mut at, mut places) = (base, vec![0; caps.len()]);
    for index in &order {
        at += 4 * layout.gap;
        places[*index] = at;
        at += 8 + payloads[*index].1.len();
    }
    let mut bytes = vec![0xff; at - base];
    for (index, (id, payload)) in payloads.iter().enumerate() {
        let next = places.get(index + 1).copied().unwrap_or(0) as u32;
        let mut cap = id.to_ne_bytes().to_vec();
        cap.extend(1_u16.to_ne_bytes());
        cap.extend(next.to_ne_bytes());
        cap.extend(payload);
        let start = places[index] - base;
        bytes[start..start + cap.len()].copy_from_slice(&cap);
    }
    (places.first().copied().unwrap_or(0) as u32, bytes)
}

/// A damage to a structure.
#[derive(Debug, Clone)]
pub enum Damage {
    /// Changes a byte.
    Byte(prop::sample::Index, u8),
    /// Replaces an aligned 32-bit word by a number with a meaning elsewhere.
    Word(prop::sample::Index, Meaning),
    /// Truncates the structure.
    Cut(prop::sample::Index),
    /// Extends the structure.
    Grown(Vec<u8>),
}

#[derive(Debug, Clone)]
pub enum Meaning {
    /// The offset of the word itself, or of the one before it: loops.
    Here,
    Before,
    /// That many bytes before the end.
    BeforeEnd(u32),
    /// Past the end.
    Number(u32),
    /// Any aligned offset, including the fields before the capabilities.
    Place(prop::sample::Index),
}

pub fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let index = any::<prop::sample::Index>;
    let meaning = prop_oneof![
        Just(Meaning::Here),
        Just(Meaning::Before),
        (0_u32..20).prop_map(Meaning::BeforeEnd),
        prop_oneof![
            Just(u32::MAX),
            Just(u32::MAX - 3),
            Just(1 << 31),
            Just(1 << 28),
            0_u32..64,
            any::<u32>()
        ]
        .prop_map(Meaning::Number),
        index().prop_map(Meaning::Place),
    ];
    let damage = prop_oneof![
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (index(), meaning).prop_map(|(at, word)| Damage::Word(at, word)),
        1 => index().prop_map(Damage::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Grown),
    ];
    prop::collection::vec(damage, 1..5)
}

pub fn damage(bytes: &mut Vec<u8>, damage: &Damage) {
    if bytes.len() < 4 {
        return;
    }
    let length = bytes.len() as u32;
    match damage {
        Damage::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Damage::Word(at, meaning) => {
            let at = 4 * at.index(bytes.len() / 4);
            let word = match meaning {
                Meaning::Here => at as u32,
                Meaning::Before => (at as u32).saturating_sub(4),
                Meaning::BeforeEnd(bytes) => length.saturating_sub(*bytes),
                Meaning::Number(number) => *number,
                Meaning::Place(place) => 4 * place.index(bytes.len() / 4) as u32,
            };
            bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
        Damage::Grown(more) => bytes.extend(more),
    }
}
