/**
 * The styles of the picture and the page, for light and dark mode. They use fonts of the reader's machine.
 */
export const STYLE = `
:root { --page: #f7f8fa; --card: #fff; --ink: #1c2430; --soft: #5d6878; --line: #cfd6e0; --wire: #9aa7b8;
  --root: #e4e9f2; --bridge: #fff; --device: #eef4ff; --peer: #3566d6;
  --yes: #1a7f4b; --yes-bg: #d6f2e2; --host: #1d5fa8; --host-bg: #dcebfb; --no: #b3261e; --no-bg: #fbe0de;
  --unknown: #8a5a00; --unknown-bg: #fdefcf; --slow: #b26a00 }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --card: #1a2029; --ink: #e6ebf2; --soft: #98a4b5;
  --line: #343e4c; --wire: #5b687a; --root: #232b37; --bridge: #1a2029; --device: #1d2a40; --peer: #7ea6ff;
  --yes: #6fdca4; --yes-bg: #143526; --host: #8fc1f7; --host-bg: #152c45; --no: #ff9d96; --no-bg: #431c1a;
  --unknown: #f3c668; --unknown-bg: #3d2f10; --slow: #f0b04c } }
svg { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px }
svg text { fill: var(--ink) }
svg .title { font-size: 18px; font-weight: 600 }
svg .name { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; font-weight: 600 }
svg .kind { font-size: 10.5px }
svg .small, svg .foot, svg .link { font-size: 11px; fill: var(--soft) }
svg .tiny { font-size: 10px; fill: var(--soft); font-family: ui-monospace, "DejaVu Sans Mono", monospace }
svg .number { font-weight: 700; fill: var(--peer); text-anchor: end }
svg .end, svg .foot, svg .link { text-anchor: end }
svg .middle { text-anchor: middle }
svg .page { fill: var(--page) }
svg .root { fill: var(--root); stroke: var(--line) }
svg .box rect { fill: var(--bridge); stroke: var(--line) }
svg .device rect { fill: var(--device) }
svg .peer rect { stroke: var(--peer); stroke-width: 1.5 }
svg .wire { fill: none; stroke: var(--wire); stroke-linejoin: round }
svg .wire.slow { stroke: var(--slow) }
svg .link.slow { fill: var(--slow) }
svg .self { fill: var(--line); opacity: .35 }
svg .word { font-weight: 600 }
svg .yes rect { fill: var(--yes-bg) } svg .yes .word { fill: var(--yes) }
svg .host-bridge rect { fill: var(--host-bg) } svg .host-bridge .word { fill: var(--host) }
svg .no rect { fill: var(--no-bg) } svg .no .word { fill: var(--no) }
svg .unknown rect { fill: var(--unknown-bg) } svg .unknown .word { fill: var(--unknown) }
`;
