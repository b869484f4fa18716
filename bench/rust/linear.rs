//! The reference for BAR moves: a linear manager of regions, without host memory. The command `linear OTHERS MOVES`
//! prints the nanoseconds of each move, one per line.
//!
//! It keeps a list of regions, and searches all of it to find one. After every change it builds a new flat list of
//! mapped ranges, compares it with the previous one, unmaps removed ranges and maps added ones. Regions do not
//! overlap here, so it requires no priorities.

use std::time::Instant;

struct Region {
    id: u32,
    start: u64,
    length: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Mapped {
    start: u64,
    end: u64,
    region: u32,
}

trait Target {
    fn map(&mut self, part: &Mapped);
    fn unmap(&mut self, part: &Mapped);
}

/// Counts the calls, so that none is optimized away.
struct NoOp(u64);

impl Target for NoOp {
    fn map(&mut self, _: &Mapped) {
        self.0 += 1;
    }
    fn unmap(&mut self, _: &Mapped) {
        self.0 += 1;
    }
}

struct Manager {
    regions: Vec<Region>,
    flat: Vec<Mapped>,
    targets: Vec<Box<dyn Target>>,
}

impl Manager {
    fn move_region(&mut self, id: u32, start: u64) {
        let region = self.regions.iter_mut().find(|region| region.id == id);
        region.expect("a region of that id").start = start;
        self.update();
    }

    fn update(&mut self) {
        let mut flat: Vec<Mapped> = self.regions.iter().map(mapped).collect();
        flat.sort_by_key(|part| part.start);
        for target in &mut self.targets {
            missing_in(&flat, &self.flat).for_each(|part| target.unmap(part));
            missing_in(&self.flat, &flat).for_each(|part| target.map(part));
        }
        self.flat = flat;
    }
}

fn mapped(&Region { id, start, length }: &Region) -> Mapped {
    Mapped { start, end: start + length, region: id }
}

/// Iterates over the parts of `of` that `flat` does not contain. Both are in the order of addresses.
fn missing_in<'a>(flat: &'a [Mapped], of: &'a [Mapped]) -> impl Iterator<Item = &'a Mapped> {
    let mut rest = flat.iter().peekable();
    of.iter().filter(move |part| {
        while rest.next_if(|other| other.start < part.start).is_some() {}
        rest.peek() != Some(part)
    })
}

fn main() {
    let numbers: Vec<u32> = std::env::args().skip(1).flat_map(|text| text.parse()).collect();
    let [others, moves] = numbers[..] else { panic!("linear OTHERS MOVES") };
    let [here, there] = [0x20_0000_0000, 0x30_0000_0000];
    let page = |id: u32| Region { id, start: u64::from(id) << 12, length: 1 << 12 };
    let mut regions: Vec<Region> = (0..others).map(page).collect();
    regions.push(Region { id: others, start: here, length: 0x1_0000 });
    let mut manager = Manager { regions, flat: Vec::new(), targets: vec![Box::new(NoOp(0))] };
    manager.update();
    for round in 0..moves {
        let begin = Instant::now();
        manager.move_region(others, if round % 2 == 0 { there } else { here });
        println!("{}", begin.elapsed().as_nanos());
    }
}
