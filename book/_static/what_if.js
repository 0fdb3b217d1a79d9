// The what-if page: scores its networks again whenever a control moves, and says what changed. The formulas are those
// of quide/metric.py, and a test compares them. On a page without the controls this file does nothing.
"use strict";

(() => {
  const PAUSE_MS = 300; // a slider is described when it has come to rest, not at every step
  const PRINTED = 4; // significant digits of the paper's numbers, and of any score at most
  const UNKNOWN = "–";
  const CONTROLS = ["network", "kernel", "unit", "count", "tolerance"];

  // --- the metric ---------------------------------------------------------------------------------------------------

  const latencyPenalty = (latency) => Math.log1p(latency) / Math.log(2);

  // Eq. 2.
  const intelligenceIndex = (compression, accuracy, latency) => (compression * accuracy) / latencyPenalty(latency);

  // Eq. 3.
  const gatedIndex = (compression, accuracy, latency, threshold) =>
    (compression * Math.max(accuracy - threshold, 0)) / latencyPenalty(latency);

  // Eq. 4.
  const accuracyThreshold = (fullPrecision, tolerance, numClasses) =>
    Math.max(1 / numClasses, fullPrecision - tolerance);

  // 32 over the mean width: of the layers, or of the weights where their numbers are given. A single width is that of
  // all layers.
  function compressionRatio(bits, numWeights = null) {
    const layers = Array.isArray(bits) ? bits.length : (numWeights ?? [1]).length;
    const widths = Array.isArray(bits) ? bits : Array(layers).fill(bits);
    const sizes = numWeights ?? Array(layers).fill(1);
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    return (32 * sum(sizes)) / sum(widths.map((width, layer) => width * sizes[layer]));
  }

  // Place of the highest score above 0, unknown ones (null) aside; of equal scores the wider configuration wins.
  function knee(widths, scores) {
    let best = null;
    scores.forEach((score, place) => {
      if (score === null || score <= 0) return;
      const ahead = best === null || score > scores[best];
      if (ahead || (score === scores[best] && widths[place] > widths[best])) best = place;
    });
    return best;
  }

  // --- what a choice makes of a network -----------------------------------------------------------------------------

  function compressionOf(row, network, count) {
    if (count === "nominal") return compressionRatio(row.bits);
    if (network.num_weights === null) return Array.isArray(row.bits) ? null : compressionRatio(row.bits);
    return compressionRatio(row.bits, network.num_weights);
  }

  // Where some configurations have no score, none is the knee: it is the first of the others that is named, and that
  // only if the paper's knee is among these. The paper's own scores, of its choices, stand where one is missing.
  function score(data, choice) {
    const network = data.networks[choice.network];
    const tolerance = choice.tolerance ?? network.tolerance;
    const threshold = accuracyThreshold(network.full_precision, tolerance, network.num_classes);
    const asStated = ["unit", "count"].every((name) => choice[name] === data.start[name]);
    const isStated = asStated && choice.kernel === "paper" && choice.tolerance === null;
    const rows = network.table.map((row) => {
      const compression = compressionOf(row, network, choice.count);
      const time = row[choice.kernel];
      const latency = time === null ? null : time * data.units[choice.unit].factor;
      const known = compression !== null && row.accuracy !== null && latency !== null;
      const parts = [compression, row.accuracy, latency];
      return {
        compression,
        accuracy: row.accuracy,
        latency,
        index: known ? intelligenceIndex(...parts) : null,
        gatedIndex: known ? gatedIndex(...parts, threshold) : null,
        stated: known || !isStated ? [null, null] : [row.index, row.gated_index],
      };
    });
    const widths = network.table.map((row) => 32 / compressionRatio(row.bits));
    const scored = rows.filter((row) => row.index !== null).length;
    const whole = scored === rows.length;
    const named = whole || rows.some((row, place) => row.index !== null && isPapersKnee(network, place));
    const first = (name) => (named ? knee(widths, rows.map((row) => row[name])) : null);
    return { network, threshold, rows, scored, whole, named, best: first("index"), knee: first("gatedIndex") };
  }

  const isPapersKnee = (network, place) => network.table[place].name === network.stated_knee;

  // --- in words -----------------------------------------------------------------------------------------------------

  function figures(value, digits = PRINTED) {
    if (value === null || value === 0) return value === null ? UNKNOWN : "0";
    return value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(Math.abs(value)))));
  }

  const fixed = (value, digits) => (value === null ? UNKNOWN : value.toFixed(digits));
  const percent = (value) => (value === null ? UNKNOWN : `${(100 * value).toFixed(2)} %`);
  const implied = (text, isImplied) => (isImplied && text !== UNKNOWN ? `${text} †` : text);
  const originWords = (origin) => (origin === "derived" ? "implied" : "stated");
  const nameOf = (result, place) => (place === null ? null : result.network.table[place].name);

  function toleranceText(network, tolerance) {
    const paper = network.tolerance.toFixed(2);
    return tolerance === null ? `${paper} (the paper's)` : `${tolerance.toFixed(2)} (the paper's is ${paper})`;
  }

  // "stays at A", "moves from A to B", and where there is none before or after.
  function moves(before, after) {
    if (before === after) return after === null ? "is still nowhere" : `stays at ${after}`;
    if (after === null) return "is gone";
    return before === null ? `is now at ${after}` : `moves from ${before} to ${after}`;
  }

  function changesOf(data, before, after, threshold) {
    const names = { unit: ["Unit of T", "units"], count: ["C counts", "counts"], kernel: ["Latencies", "kernels"] };
    const said = [];
    if (before.network !== after.network) said.push(data.networks[after.network].label);
    for (const [control, [title, options]] of Object.entries(names)) {
      const words = (choice) => data[options][choice[control]].words;
      if (before[control] !== after[control]) said.push(`${title}: ${words(after)} instead of ${words(before)}`);
    }
    if (before.network === after.network && before.tolerance !== after.tolerance) {
      const delta = (choice) => (choice.tolerance ?? data.networks[choice.network].tolerance).toFixed(2);
      said.push(`δ: ${delta(after)} instead of ${delta(before)}, which puts the threshold at ${percent(threshold)}`);
    }
    return said;
  }

  // What a change of the controls did; `before` is null when the page opens.
  function describe(data, before, after) {
    const now = score(data, after);
    const sentences = [];
    if (before === null) sentences.push(now.network.label);
    else sentences.push(changesOf(data, before, after, now.threshold).join("; ") || "Nothing changed");
    if (before === null || before.network !== after.network) sentences.push(standing(now));
    else sentences.push(effect(score(data, before), now));
    if (now.named && now.knee === null) sentences.push("No configuration is above the threshold");
    return `${sentences.join(". ")}.`;
  }

  function standing(result) {
    if (result.scored === 0) return "No configuration can be scored: each lacks a number";
    const where = (place) => (place === null ? "nowhere above 0" : `at ${nameOf(result, place)}`);
    if (result.whole) {
      const knee = result.knee === null ? "there is no knee" : `the knee is ${where(result.knee)}`;
      return `I is highest ${where(result.best)}; ${knee}`;
    }
    const part = `${result.scored} of ${result.rows.length} configurations can be scored`;
    const stated = result.network.stated_knee;
    const paper = stated ? `The paper states the knee at ${stated}` : "";
    if (!result.named) return [`Only ${part}, too few to say where the knee is`, paper].filter(Boolean).join(". ");
    const highest = `I is highest ${where(result.best)} and I′ ${where(result.knee)}`;
    return `Only ${part}; of these ${highest}. ${paper}`;
  }

  // The same network before and after.
  function effect(then, now) {
    const same = (name) => now.rows.every((row, place) => row[name] === then.rows[place][name]);
    if (same("index") && same("gatedIndex")) return `No score changes. ${standing(now)}`;
    if (!then.named || !now.named || then.scored !== now.scored) return standing(now);
    const first = (name) => moves(nameOf(then, then[name]), nameOf(now, now[name]));
    const knee = now.whole ? "knee" : `highest I′ of the ${now.scored} that can be scored`;
    return `${same("index") ? "I does not change" : `The highest I ${first("best")}`}; the ${knee} ${first("knee")}`;
  }

  // --- the address --------------------------------------------------------------------------------------------------

  function toFragment(choice) {
    const entries = Object.entries(choice).filter(([, value]) => value !== null);
    return `#${new URLSearchParams(entries)}`;
  }

  // The choice that an address holds, null if it names no network. What else it lacks or has wrong is as at the start.
  function fromFragment(data, fragment) {
    const asked = new URLSearchParams(fragment.slice(1));
    const oneOf = (name, options, otherwise) => (Object.hasOwn(options, asked.get(name)) ? asked.get(name) : otherwise);
    const key = oneOf("network", data.networks, null);
    if (key === null) return null;
    const network = data.networks[key];
    const tolerance = Number(Number.parseFloat(asked.get("tolerance")).toFixed(2)); // the slider's steps
    const usable = tolerance >= 0 && tolerance <= 1 && tolerance !== network.tolerance;
    return {
      network: key,
      kernel: oneOf("kernel", network.latency_sources, network.kernel),
      unit: oneOf("unit", data.units, data.start.unit),
      count: oneOf("count", data.counts, data.start.count),
      tolerance: usable ? tolerance : null,
    };
  }

  // --- the page -----------------------------------------------------------------------------------------------------

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // Controls, chart and table below `root`, and the choice that they show.
  function start(root) {
    const data = JSON.parse(root.querySelector(".what-if-data").textContent);
    const find = (selector) => root.querySelector(selector);
    const form = find("form");
    let choice = fromFragment(data, location.hash) ?? data.start;
    let described = null; // the choice that the sentence last told of
    let pause = null;

    function fillForm() {
      const networks = Object.entries(data.networks);
      form.elements.network.append(...networks.map(([key, network]) => new Option(network.label, key)));
      for (const box of form.querySelectorAll("[data-options]")) {
        for (const [value, option] of Object.entries(data[box.dataset.options])) {
          const radio = element("input", { type: "radio", name: box.dataset.control, value });
          box.append(element("label", {}, radio, ` ${option.text}`));
        }
      }
      for (const button of form.querySelectorAll("[data-preset]")) {
        button.parentElement.hidden = !(button.dataset.network in data.networks);
      }
    }

    function presetOf({ network, unit, count }) {
      const { kernel } = data.networks[network];
      return { network, kernel, unit: unit ?? data.start.unit, count: count ?? data.start.count, tolerance: null };
    }

    function readForm(moved) {
      const asked = Object.fromEntries(CONTROLS.map((name) => [name, form.elements[name].value]));
      const network = data.networks[asked.network];
      // A network comes with latencies of its own source: the paper's accuracies are not joined to our clock unasked.
      const own = moved === "network" && ["measured", "paper"].includes(asked.kernel);
      if (own || !(asked.kernel in network.latency_sources)) asked.kernel = network.kernel;
      const tolerance = moved === "tolerance" ? Number.parseFloat(asked.tolerance) : choice.tolerance;
      return { ...asked, tolerance: tolerance === network.tolerance ? null : tolerance };
    }

    function writeForm(network) {
      const shown = { ...choice, tolerance: choice.tolerance ?? network.tolerance };
      for (const name of CONTROLS) form.elements[name].value = shown[name];
      for (const radio of form.elements.kernel) radio.disabled = !(radio.value in network.latency_sources);
      const text = toleranceText(network, choice.tolerance);
      find("output").value = text;
      form.elements.tolerance.setAttribute("aria-valuetext", text);
    }

    function drawTable(result) {
      const heading = `T (${data.units[choice.unit].words})`;
      find("thead").rows[0].cells[5].textContent = heading;
      const caption = `Scores of ${result.network.label}`;
      find("caption").textContent = caption;
      find(".quide-table").setAttribute("aria-label", caption);
      const kneeMark = result.whole ? " ★ knee" : " ★ highest";
      const digits = result.network.figures[choice.kernel];
      const cell = (value, stated, origin, mark) =>
        stated === null ? figures(value, scoreDigits(result.network)) + (mark || "") : `${figures(stated)} ${originWords(origin)}`;
      const lines = result.rows.map((row, place) => {
        const known = result.network.table[place];
        const cells = [
          cell(row.gatedIndex, row.stated[1], known.gated_index_origin, place === result.knee && kneeMark),
          cell(row.index, row.stated[0], known.index_origin, place === result.best && " ▲ highest"),
          fixed(row.compression, 2),
          implied(percent(row.accuracy), known.accuracy_origin === "derived"),
          implied(figures(row.latency, digits), choice.kernel === "paper" && known.paper_origin === "derived"),
        ];
        const head = element("th", { scope: "row", textContent: known.name });
        return element("tr", {}, head, ...cells.map((textContent) => element("td", { textContent })));
      });
      const labels = [...find("thead").rows[0].cells].map((each) => each.textContent);
      for (const line of lines) [...line.cells].forEach((each, place) => (each.dataset.label = labels[place]));
      find("tbody").replaceChildren(...lines);
      find(".what-if-source").textContent = result.network.latency_sources[choice.kernel];
    }

    const scoreDigits = (network) => Math.min(network.figures[choice.kernel] + 1, PRINTED);

    // Bars are as long as their score's share of the highest I, so that a change of unit shows as a change of order.
    function drawChart(result) {
      const chart = find(".what-if-chart");
      const shown = (row) => [row.index ?? row.stated[0], row.gatedIndex ?? row.stated[1]];
      const highest = Math.max(...result.rows.flatMap(shown)) || 1;
      if (chart.dataset.network !== choice.network) {
        chart.dataset.network = choice.network;
        const bar = (kind) => element("div", { className: `what-if-bar what-if-${kind}` }, element("span"));
        const line = () => element("div", { className: "what-if-line" }, element("span"), bar("raw"), bar("gated"));
        const key = (kind, text) => element("span", { className: `what-if-key what-if-${kind}`, textContent: text });
        const marks = element("span", { className: "what-if-marks" });
        const legend = element("div", { className: "what-if-legend" }, key("raw", "I"), key("gated", "I′"), marks);
        chart.replaceChildren(legend, ...result.rows.map(line));
      }
      const first = result.whole ? "▲ highest I, ★ knee" : "▲ highest I, ★ highest I′, of those scored";
      chart.querySelector(".what-if-marks").textContent = `${first}; hollow: stated`;
      [...chart.querySelectorAll(".what-if-line")].forEach((line, place) => {
        const [name, ...bars] = line.children;
        const marks = `${place === result.best ? " ▲" : ""}${place === result.knee ? " ★" : ""}`;
        name.textContent = result.network.table[place].name + marks;
        shown(result.rows[place]).forEach((value, which) => {
          bars[which].style.setProperty("--share", (value ?? 0) / highest);
          const stated = result.rows[place].stated[which] !== null;
          bars[which].firstChild.textContent = figures(value, stated ? PRINTED : scoreDigits(result.network));
          bars[which].classList.toggle("what-if-stated", stated);
        });
      });
      chart.setAttribute("aria-label", `Bars of I and I′, the numbers of the table below. ${standing(result)}.`);
    }

    function settle() {
      find(".what-if-sentence").textContent = describe(data, described, choice);
      if (described !== null) history.replaceState(null, "", toFragment(choice));
      described = choice;
    }

    function show(next) {
      choice = next;
      const result = score(data, choice);
      writeForm(result.network);
      drawTable(result);
      drawChart(result);
      clearTimeout(pause);
      pause = setTimeout(settle, described === null ? 0 : PAUSE_MS);
    }

    fillForm();
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", (event) => show(readForm(event.target.name)));
    form.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button !== null) show("preset" in button.dataset ? presetOf(button.dataset) : data.start);
    });
    addEventListener("hashchange", (event) => {
      const asked = fromFragment(data, new URL(event.newURL).hash); // settle() may have rewritten the address since
      if (asked !== null) show(asked);
    });
    find(".what-if-missing").hidden = true;
    for (const part of [form, find(".what-if-result")]) part.hidden = false;
    show(choice);
  }

  const root = document.getElementById("what-if");
  if (root !== null) start(root);
})();
