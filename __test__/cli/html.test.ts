/**
 * The HTML of the pages: bundled scripts and styles, embedded data, and a missing bundle.
 */
import { Script } from 'node:vm';
import test from 'ava';
import { PeerDmaError } from '../../ts/index.ts';
import { bundledText, htmlPage } from '../../ts/cli/html.ts';

for (const name of ['view', 'topology'] as const) {
  test(`the page ${name} has one script, one style sheet and its data, which no text of them ends`, (t) => {
    const data = { name: '</script><!--<script>' };
    const html = htmlPage(name, { title: 'a & b', body: '<p>body</p>', data });
    t.is(html.match(/<\/script/gi)?.length, 2, 'of the data, and of the script');
    t.is(html.match(/<\/style/gi)?.length, 1);
    t.notRegex(html, /<!--/);
    const [, json = '', script = ''] =
      /<script id="data" [^>]*>(.*)<\/script>\n<script>\n(.*)<\/script>/s.exec(html) ?? [];
    t.deepEqual(JSON.parse(json), data);
    t.notThrows(() => new Script(script), 'a script, not a module');
    t.is(script, bundledText(`${name}.js`));
    t.true(html.includes(`<style>\n${bundledText(`${name}.css`)}</style>`));
  });
}

test('reports a missing bundle with the remedy', (t) => {
  const error = t.throws(() => bundledText('none.js'), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_SYSTEM');
  t.is(error.errno, 'ENOENT');
  t.regex(error.message, /dist\/web\/none\.js: read failed: ENOENT.*\. Run npm run build in a checkout/);
});
