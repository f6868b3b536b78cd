"use strict";

const element = (id) => document.getElementById(id);
const state = { key: null, name: "", place: null, grid: null, part: null, turn: 0 };
const WAIT = 120; // milliseconds of rest before a moved slider asks

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The program that serves this page does not respond: has it been stopped?");
  }
  const content = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(content.error || `The program failed (${answer.status}): see its terminal for the reason.`);
  return content;
}

function tell(error) {
  element("error").textContent = error ? error.message : "";
  element("error").hidden = !error;
}

const view = () => document.querySelector("input[name=view]:checked").value;
const address = (what, values) =>
  `api/photographs/${encodeURIComponent(state.key)}/${what}?${new URLSearchParams({
    clusters: element("clusters").value,
    crf: element("crf").checked,
    ...values,
  })}`;

/* Ask for what the view shows; of several turns under way only the last is shown. */
async function refresh() {
  const turn = ++state.turn;
  busy(true);
  try {
    const wanted = [];
    wanted.push(state.place ? ask(address("part", state.place)) : null);
    wanted.push(view() === "all" || !state.place ? ask(address("components")) : null);
    const [part, all] = await Promise.all(wanted);
    if (turn !== state.turn) return;
    tell(null);
    state.part = part;
    show(part, all);
  } catch (error) {
    if (turn === state.turn) tell(error);
  } finally {
    if (turn === state.turn) busy(false);
  }
}

function busy(yes) {
  for (const id of ["here", "elsewhere"]) element(id).setAttribute("aria-busy", String(yes));
}

function show(part, all) {
  const layers = { heat: part && part.heat, mask: part && part.mask, all: all && all.layer, none: null };
  const source = part ? layers[view()] : view() === "none" ? null : all.layer;
  element("layer").hidden = !source;
  element("layer").className = element("crf").checked || (part && view() === "heat") ? "" : "cells";
  if (source) element("layer").src = source;
  if (part) {
    mark(part.cell, part.grid);
    showNeighbours(part);
    const where = part.foreground ? "foreground" : "background";
    element("status").textContent =
      `Component ${part.component}, in the ${where}: ${(100 * part.share).toFixed(0)} % of the photograph. ` +
      `Similarities from ${part.least.toFixed(2)} (transparent) to 1 (bright).`;
  } else {
    element("status").textContent = `${all.components} of ${all.clusters} components are in this photograph: click one.`;
  }
}

function mark(cell, grid) {
  state.grid = grid;
  const [rows, columns] = grid;
  Object.assign(element("mark").style, {
    left: `${(100 * cell.column) / columns}%`,
    top: `${(100 * cell.row) / rows}%`,
    width: `${100 / columns}%`,
    height: `${100 / rows}%`,
  });
  element("mark").hidden = false;
}

function showNeighbours(part) {
  element("neighbours").replaceChildren(
    ...part.neighbours.map((found) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const picture = document.createElement("img");
      const caption = document.createElement("small");
      picture.src = found.picture;
      picture.alt = `${found.name}, similarity ${found.similarity.toFixed(2)}${found.same ? ", same component" : ""}`;
      caption.textContent = found.similarity.toFixed(2);
      if (found.same) item.className = "same";
      item.style.setProperty("--component", part.colour);
      button.title = found.name;
      button.append(picture, caption);
      button.addEventListener("click", () => open(found.key, found.name, { x: found.x, y: found.y }));
      item.append(button);
      return item;
    }),
  );
}

function open(key, name, place) {
  Object.assign(state, { key, name, place: place || null, grid: null, part: null });
  element("mark").hidden = true;
  element("layer").hidden = true;
  element("name").textContent = name;
  element("photo").alt = `Photograph ${name}`;
  element("photo").src = `api/photographs/${encodeURIComponent(key)}/picture`;
  if (!place) element("neighbours").replaceChildren();
  for (const button of document.querySelectorAll("#strip button"))
    button.setAttribute("aria-current", String(button.dataset.key === key));
  refresh();
}

async function upload(file) {
  const turn = ++state.turn;
  busy(true);
  element("status").textContent = `Looking at ${file.name} …`;
  try {
    const options = { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file };
    const { key } = await ask("api/photographs", options);
    tell(null);
    open(key, file.name);
  } catch (error) {
    tell(error);
    element("status").textContent = "";
  } finally {
    if (turn === state.turn) busy(false);
  }
}

function select(x, y) {
  state.place = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) };
  refresh();
}

function listen() {
  const stage = element("stage");
  const photo = element("photo");
  photo.addEventListener("load", () => {
    stage.style.setProperty("--ratio", String(photo.naturalWidth / photo.naturalHeight));
  });
  stage.addEventListener("click", (event) => {
    const box = photo.getBoundingClientRect();
    select((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
  });
  stage.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = event.key === "Enter" ? [0, 0] : steps[event.key];
    if (!step || !state.key) return;
    event.preventDefault();
    const from = state.place || { x: 0.5, y: 0.5 };
    const [rows, columns] = state.grid || [16, 16];
    select(from.x + step[0] / columns, from.y + step[1] / rows);
  });
  let timer;
  element("clusters").addEventListener("input", () => {
    element("clusters-value").textContent = element("clusters").value;
    clearTimeout(timer);
    timer = setTimeout(refresh, WAIT);
  });
  element("crf").addEventListener("change", refresh);
  for (const choice of document.querySelectorAll("input[name=view]")) choice.addEventListener("change", refresh);
  element("file").addEventListener("change", () => {
    if (element("file").files.length) upload(element("file").files[0]);
    element("file").value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}

async function start() {
  const page = await ask("api/page");
  element("data").textContent = `${page.images.length} images of ${page.data}`;
  element("limit").textContent = `(up to ${page.most_megabytes} MB)`;
  element("clusters").max = page.most_clusters;
  element("clusters").value = page.clusters;
  element("clusters-value").textContent = element("clusters").value;
  element("strip").replaceChildren(
    ...page.images.map((name, number) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      const picture = document.createElement("img");
      picture.loading = "lazy";
      picture.alt = name;
      picture.src = `api/photographs/data-${number}/picture`;
      button.dataset.key = `data-${number}`;
      button.title = name;
      button.append(picture);
      button.addEventListener("click", () => open(button.dataset.key, name));
      item.append(button);
      return item;
    }),
  );
  listen();
  open("data-0", page.images[0]);
}

start().catch(tell);
