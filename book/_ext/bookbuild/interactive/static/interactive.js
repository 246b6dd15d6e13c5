// The figures that a reader can move. All that they need lies in the site: no library, no server.
// Their elements and data come from genbook/figures/interactive.py.
(() => {
  "use strict";

  const WORDS = {
    en: { decoded: "decoded image", nearest: "nearest code", play: "Play", pause: "Pause" },
    zh: { decoded: "解码图像", nearest: "最近的编码", play: "播放", pause: "暂停" },
  };
  const words = WORDS[document.documentElement.lang.slice(0, 2)] || WORDS.en;
  // The classes' colours, as in the figures that do not move (genbook/figures/plots.py).
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const number = (x, digits) => x.toFixed(digits).replace("-", "−");
  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  function element(tag, attributes = {}, ...children) {
    const svg = ["svg", "path", "line", "circle"].includes(tag);
    const made = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", tag)
      : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  // Weights --------------------------------------------------------------------------------------

  // What a script of the site hands over. A page that is opened as a file can load it as well.
  function load(address, key) {
    return new Promise((resolve, reject) => {
      const script = element("script", { src: address });
      script.onload = () => resolve(bytes(window.genbookFiles[key]));
      script.onerror = reject;
      document.head.append(script);
    });
  }

  // A network of linear layers with ReLUs between them and a sigmoid at the end: code -> pixels.
  // data: scales and biases of each layer (float32), then the weights of each (int16, row by row).
  function decoder(data, shapes) {
    let at = 0;
    const take = (Type, count) => {
      const view = new Type(data.buffer, at, count);
      at += view.byteLength;
      return view;
    };
    const layers = shapes.map(([, columns]) => ({
      scale: take(Float32Array, columns),
      bias: take(Float32Array, columns),
    }));
    shapes.forEach(([rows, columns], i) => { layers[i].weight = take(Int16Array, rows * columns); });
    return (code) =>
      layers.reduce((x, { scale, bias, weight }, i) => {
        const sum = new Float64Array(bias.length);
        x.forEach((value, row) => {
          if (value === 0) return; // half of the units of a ReLU
          const start = row * sum.length;
          for (let j = 0; j < sum.length; j++) sum[j] += value * weight[start + j];
        });
        const last = i === layers.length - 1;
        return sum.map((s, j) => {
          const y = s * scale[j] + bias[j];
          return last ? 1 / (1 + Math.exp(-y)) : Math.max(0, y);
        });
      }, Float64Array.from(code));
  }

  // The planes of codes --------------------------------------------------------------------------

  // Round numbers from low to high, four or five of them.
  function ticks(low, high) {
    const rough = (high - low) / 4;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((m) => m * power >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
  }

  function drawCodes(canvas, panel, labels, classes) {
    const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
    if (!side) return;
    canvas.width = canvas.height = Math.round(side * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const marks = [0, 1].flatMap((axis) => ticks(panel.low[axis], panel.high[axis]).map((value) => {
      const share = (value - panel.low[axis]) / (panel.high[axis] - panel.low[axis]);
      return { axis, value, at: Math.round((axis ? 1 - share : share) * side) + 0.5 };
    }));
    pen.lineWidth = 1;
    pen.strokeStyle = style.borderTopColor;
    for (const { axis, at } of marks) {
      pen.beginPath();
      pen.moveTo(axis ? 0 : at, axis ? at : 0);
      pen.lineTo(axis ? side : at, axis ? at : side);
      pen.stroke();
    }

    const codes = new Uint16Array(bytes(panel.codes).buffer);
    pen.font = `${clamp(side / 34, 6, 10)}px ${style.fontFamily}`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    labels.forEach((label, i) => {
      pen.fillStyle = COLOURS[label % COLOURS.length];
      pen.fillText(classes[label], (codes[2 * i] / 65535) * side, (1 - codes[2 * i + 1] / 65535) * side);
    });

    pen.font = `11px ${style.fontFamily}`;
    pen.lineWidth = 4;
    pen.strokeStyle = style.backgroundColor; // a margin around the numbers, over the codes
    pen.fillStyle = style.color;
    pen.textAlign = "left";
    for (const { axis, value, at } of marks) {
      if (at < 24 || at > side - 24) continue;
      const where = [number(value, 0), axis ? 3 : at + 3, axis ? at - 7 : side - 8];
      pen.strokeText(...where);
      pen.fillText(...where);
    }
  }

  function drawImage(canvas, pixels) {
    const image = new ImageData(canvas.width, canvas.height);
    pixels.forEach((p, i) => image.data.set([255 * p, 255 * p, 255 * p, 255], 4 * i));
    canvas.getContext("2d").putImageData(image, 0, 0);
  }

  function addPanel(root, panel, address, { labels, classes }) {
    const { low, high, side } = panel;
    const codes = element("canvas", { class: "interactive-codes", "aria-hidden": "true" });
    const handle = element("span", {
      class: "interactive-handle", role: "slider", tabindex: "0", "aria-label": `${panel.title}: z`,
      "aria-valuemin": number(low[0], 2).replace("−", "-"),
      "aria-valuemax": number(high[0], 2).replace("−", "-"),
    });
    const plane = element("div", { class: "interactive-plane" }, codes, handle);
    const image = element("canvas", { class: "interactive-image", width: side, height: side, role: "img" });
    const text = element("div", { class: "interactive-text" });
    root.append(element("div", { class: "interactive-panel" },
      element("div", { class: "interactive-title" }, panel.title), plane, image, text));

    const places = new Uint16Array(bytes(panel.codes).buffer);
    const share = (z) => z.map((value, i) => (value - low[i]) / (high[i] - low[i]));
    const nearest = (z) => {
      const [a, b] = share(z).map((s) => s * 65535);
      let best = 0, least = Infinity;
      labels.forEach((label, i) => {
        const distance = (places[2 * i] - a) ** 2 + (places[2 * i + 1] - b) ** 2;
        if (distance < least) [best, least] = [label, distance];
      });
      return classes[best];
    };

    let z = [...panel.start], decode = null, loading = null;
    drawImage(image, [...bytes(panel.image)].map((byte) => byte / 255));
    const prepare = () => {
      loading ??= load(address, panel.key).then((data) => {
        decode = decoder(data, panel.shapes);
        move(z);
      }, () => { loading = null; }); // the next movement tries again
    };
    const move = (next) => {
      z = next.map((value, i) => clamp(value, low[i], high[i]));
      const [x, y] = share(z);
      handle.style.left = `${100 * x}%`;
      handle.style.top = `${100 * (1 - y)}%`;
      const at = `z = (${number(z[0], 2)}, ${number(z[1], 2)})`;
      text.textContent = at;
      handle.setAttribute("aria-valuenow", z[0].toFixed(2));
      handle.setAttribute("aria-valuetext", `${at}, ${words.nearest}: ${nearest(z)}`);
      image.setAttribute("aria-label", `${panel.title}: ${words.decoded}, ${at}`);
      if (decode) drawImage(image, decode(z));
    };
    const follow = (event) => {
      const box = plane.getBoundingClientRect();
      const shares = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
      move(shares.map((s, i) => low[i] + s * (high[i] - low[i])));
    };
    const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };

    for (const event of ["pointerenter", "focusin"]) plane.addEventListener(event, prepare);
    plane.addEventListener("pointerdown", (event) => {
      prepare();
      plane.setPointerCapture(event.pointerId);
      follow(event);
      handle.focus({ preventScroll: true });
      event.preventDefault();
    });
    plane.addEventListener("pointermove", (event) => {
      if (plane.hasPointerCapture(event.pointerId)) follow(event);
    });
    handle.addEventListener("keydown", (event) => {
      if (event.key === "Home") move([...panel.start]);
      else if (KEYS[event.key]) {
        const step = ((event.shiftKey ? 0.05 : 0.01) * (high[0] - low[0]));
        move(z.map((value, i) => value + step * KEYS[event.key][i]));
      } else return;
      event.preventDefault();
    });
    move(z);

    const draw = () => drawCodes(codes, panel, labels, classes);
    new ResizeObserver(draw).observe(codes);
    new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  }

  function explorer(root, settings) {
    settings.panels.forEach((panel, i) => {
      addPanel(root, panel, root.getAttribute(`data-weights-${i}`), settings);
    });
  }

  // The way from noise to images -----------------------------------------------------------------

  function timeline(root, settings) {
    const { steps, images, alphas_cumprod: alphas, betas } = settings;
    const total = betas.length;
    const rows = ["x", "x̂"].map((name, row) => {
      const frames = Array.from({ length: images }, (_, i) => {
        const frame = element("span", { class: "interactive-frame" });
        frame.style.backgroundImage = `url("${root.dataset.strip}")`;
        frame.style.backgroundSize = `${100 * steps.length}% ${200 * images}%`;
        frame.dataset.row = row * images + i;
        return frame;
      });
      const label = element("span", { class: "interactive-symbol", "aria-hidden": "true" },
        name, element("sub", {}, row ? "0" : "t"));
      const pictures = element("span", { class: "interactive-frames", role: "img" }, ...frames);
      root.append(element("div", { class: "interactive-row" }, label, pictures));
      return { name, pictures, frames };
    });

    // The curves run as the slider does: from T on the left to 0 on the right.
    const place = (t) => 100 * (1 - t / total);
    const path = (values, from) =>
      "M" + values.map((y, i) => `${place(i + from).toFixed(2)} ${(40 * (1 - y)).toFixed(2)}`).join("L");
    const line = element("line", { y1: 0, y2: 40, class: "interactive-now" });
    const box = { viewBox: "0 0 100 40", preserveAspectRatio: "none", "aria-hidden": "true" };
    const curves = element("svg", box,
      element("path", { d: path(alphas, 0), class: "interactive-alpha" }),
      element("path", { d: path(betas, 1), class: "interactive-beta" }), line);
    const dots = ["alpha", "beta"].map((name) => element("span", { class: `interactive-dot ${name}` }));
    const chart = element("div", { class: "interactive-chart" }, curves, ...dots);
    const slider = element("input",
      { type: "range", min: 0, max: steps.length - 1, step: 1, "aria-label": "t" });
    const button = element("button", { type: "button", class: "interactive-play" });
    const text = {
      t: element("span"),
      alpha: element("span", { class: "interactive-key alpha" }),
      beta: element("span", { class: "interactive-key beta" }),
    };
    root.append(chart, slider,
      element("div", { class: "interactive-text" }, button, text.t, text.alpha, text.beta));

    function show() {
      const at = Number(slider.value), t = steps[at];
      for (const { name, pictures, frames } of rows) {
        for (const frame of frames) {
          const y = (100 * frame.dataset.row) / (2 * images - 1);
          frame.style.backgroundPosition = `${(100 * at) / (steps.length - 1)}% ${y}%`;
        }
        pictures.setAttribute("aria-label", `${name}, t = ${t}`);
      }
      const values = [alphas[t], t ? betas[t - 1] : null];
      line.setAttribute("x1", place(t));
      line.setAttribute("x2", place(t));
      dots.forEach((dot, i) => {
        dot.hidden = values[i] === null;
        dot.style.left = `${place(t)}%`;
        dot.style.top = `${100 * (1 - values[i])}%`;
      });
      text.t.textContent = `t = ${t}`;
      text.alpha.textContent = `ᾱ = ${values[0].toFixed(3)}`;
      text.beta.textContent = values[1] === null ? "" : `β = ${values[1].toFixed(4)}`;
      slider.setAttribute("aria-valuetext",
        [text.t, text.alpha, text.beta].map((e) => e.textContent).filter(Boolean).join(", "));
    }

    let playing = null;
    function play(on) {
      clearInterval(playing);
      playing = on ? setInterval(() => {
        if (Number(slider.value) === steps.length - 1) return play(false);
        slider.value = Number(slider.value) + 1;
        show();
      }, 90) : null;
      button.textContent = on ? "❚❚" : "▶";
      button.setAttribute("aria-label", on ? words.pause : words.play);
    }
    // Nothing moves by itself for those who ask for that: they have the slider.
    button.hidden = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    button.addEventListener("click", () => {
      if (playing === null && Number(slider.value) === steps.length - 1) slider.value = 0;
      play(playing === null);
    });
    slider.addEventListener("input", () => { play(false); show(); });
    slider.value = Math.floor(steps.length / 2);
    play(false);
    show();
  }

  // ----------------------------------------------------------------------------------------------

  const FIGURES = { explorer, timeline };
  window.genbookInteractive = { decoder, load };
  for (const root of document.querySelectorAll("div.interactive[data-kind]")) {
    root.hidden = false; // before it is drawn: what is hidden has no width
    root.classList.add(`interactive-${root.dataset.kind}`);
    root.setAttribute("role", "group");
    const caption = root.closest(".cell")?.nextElementSibling;
    if (caption?.classList.contains("interactive-caption")) {
      caption.classList.add("shown");
      caption.id ||= `${root.dataset.kind}-caption`;
      root.setAttribute("aria-labelledby", caption.id);
    }
    FIGURES[root.dataset.kind](root, JSON.parse(root.dataset.settings));
  }
})();
