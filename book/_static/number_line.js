// The number line of the primer: draws a quantizer's levels and what becomes of a value whenever a control moves. The
// grids are those of quide/ptq/grid.py, and a test compares them. On a page without the controls this file does nothing.
"use strict";

const numberLine = (() => {
  const REACH = 5; // the line goes from -REACH to REACH
  const [WIDTH, HEIGHT, MARGIN] = [640, 110, 20];
  const PAUSE_MS = 300; // the sentence is read out when a slider has come to rest, not at every step

  // --- the quantizer ------------------------------------------------------------------------------------------------

  // To the nearest integer, halves to the even one, as torch rounds.
  function roundHalfEven(value) {
    const floor = Math.floor(value);
    if (value - floor !== 0.5) return Math.round(value);
    return floor % 2 === 0 ? floor : floor + 1;
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function affineGrid(low, high, bits) {
    const last = 2 ** bits - 1;
    const scale = Math.fround((high - low) / last);
    return { scale, zeroPoint: clamp(roundHalfEven(-low / scale), 0, last), low: 0, high: last };
  }

  function symmetricGrid(low, high, bits) {
    const last = 2 ** (bits - 1) - 1;
    return { scale: Math.fround(Math.max(Math.abs(low), Math.abs(high)) / last), zeroPoint: 0, low: -last, high: last };
  }

  const gridOf = ({ kind, low, high, bits }) => (kind === "affine" ? affineGrid : symmetricGrid)(low, high, bits);
  const levelOf = (grid, integer) => (integer - grid.zeroPoint) * grid.scale;
  const integerOf = (grid, value) => clamp(roundHalfEven(value / grid.scale) + grid.zeroPoint, grid.low, grid.high);

  // --- in words -----------------------------------------------------------------------------------------------------

  function sentence(choice) {
    const grid = gridOf(choice);
    const integer = integerOf(grid, choice.value);
    const [first, last, stored] = [grid.low, grid.high, integer].map((each) => levelOf(grid, each));
    const error = stored - choice.value;
    const outside = choice.value < first - grid.scale / 2 || choice.value > last + grid.scale / 2;
    return (
      `${grid.high - grid.low + 1} levels from ${first.toFixed(2)} to ${last.toFixed(2)}, ${grid.scale.toFixed(3)} ` +
      `apart, zero point ${grid.zeroPoint}. ${choice.value.toFixed(2)} becomes the integer ${integer} and stands for ` +
      `${stored.toFixed(2)}: an error of ${error < 0 ? "" : "+"}${error.toFixed(3)}${outside ? ", from clipping" : ""}.`
    );
  }

  // --- the page -----------------------------------------------------------------------------------------------------

  function element(name, attributes, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const place = (value) => MARGIN + ((value + REACH) / (2 * REACH)) * (WIDTH - 2 * MARGIN);

  function picture(choice) {
    const grid = gridOf(choice);
    const line = (name, value, top, bottom) =>
      element("line", { class: name, x1: place(value), x2: place(value), y1: top, y2: bottom });
    const levels = [];
    for (let integer = grid.low; integer <= grid.high; integer += 1) {
      levels.push(line(integer === grid.zeroPoint ? "zero" : "level", levelOf(grid, integer), 40, 75));
    }
    const axis = element("line", { class: "axis", x1: place(-REACH), x2: place(REACH), y1: 75, y2: 75 });
    const numbers = [];
    for (let value = -REACH; value <= REACH; value += 1) {
      numbers.push(element("text", { x: place(value), y: 95, "text-anchor": "middle" }, String(value)));
    }
    const [from, to] = [place(choice.value), place(levelOf(grid, integerOf(grid, choice.value)))];
    const value = element("path", { class: "value", d: `M ${from} 26 l -6 -12 h 12 z` });
    const move = element("path", { class: "move", d: `M ${from} 28 L ${to} 40` });
    const stored = element("circle", { class: "stored", cx: to, cy: 57, r: 6 });
    const size = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true" };
    return element("svg", size, axis, ...numbers, ...levels, move, value, stored);
  }

  function start(root) {
    const form = root.querySelector("form");
    const said = root.querySelector(".number-line-sentence");
    const drawn = root.querySelector(".number-line-picture");
    let pause = null;

    function read() {
      const choice = { kind: form.elements.kind.value };
      for (const slider of form.querySelectorAll("input[type=range]")) choice[slider.name] = Number(slider.value);
      return choice;
    }

    function show() {
      const choice = read();
      for (const slider of form.querySelectorAll("input[type=range]")) {
        slider.parentElement.querySelector("output").value = slider.value;
      }
      drawn.replaceChildren(picture(choice));
      drawn.setAttribute("aria-label", sentence(choice));
      clearTimeout(pause);
      pause = setTimeout(() => { said.textContent = sentence(choice); }, PAUSE_MS);
    }

    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", show);
    for (const part of [form, drawn]) part.hidden = false;
    show();
  }

  document.querySelectorAll(".number-line").forEach(start);
  return { gridOf, levelOf, integerOf, sentence };
})();
