// Made by `amends plugin build` and not part of the project: it stands between the host and `plugin.js`,
// and has told on standard error what a call throws. Without it, nothing would say where.

import * as plugin from '../plugin.js';

const heard = (calls) => {
  const wrap = (name) => [
    name,
    function (...input) {
      try {
        return calls[name](...input);
      } catch (thrown) {
        // What has a tag is a failure that the plugin answers with.
        if (typeof thrown?.tag !== 'string') {
          console.error(`${thrown}\n${thrown?.stack ?? ''}`);
        }
        throw thrown;
      }
    },
  ];
  // By name: what an object has from its class is none of its entries.
  const names = ['execute', 'compensate', 'probe'];
  const isCall = (name) => typeof calls[name] === 'function';
  return Object.fromEntries(names.filter(isCall).map(wrap));
};

