// The page of an exported run: a film to slide and play, and charts drawn from the data below. No request is made.
'use strict';
const data = name => JSON.parse(document.getElementById(name).textContent);

function film() {
  const picture = document.getElementById('picture');
  if (!picture) return;
  const frames = data('frames'), slider = document.getElementById('slider');
  const play = document.getElementById('play'), step = document.getElementById('step');
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  let timer = null;
  const show = index => {
    picture.src = frames[index].picture;
    step.value = frames[index].step;
    slider.value = index;
    slider.setAttribute('aria-valuetext', frames[index].step);
  };
  const halt = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = 'Play';
  };
  const next = () => {
    const index = Number(slider.value) + 1;
    if (index >= frames.length) return halt();
    show(index);
    timer = setTimeout(next, calm.matches ? 1000 : 110);
  };
  play.addEventListener('click', () => {
    if (timer !== null) return halt();
    if (Number(slider.value) >= frames.length - 1) show(0);
    play.textContent = 'Pause';
    timer = setTimeout(next, calm.matches ? 1000 : 110);
  });
  slider.addEventListener('input', () => { halt(); show(Number(slider.value)); });
  show(frames.length - 1);
}

function charts() {
  const figures = data('charts');
  document.querySelectorAll('[data-chart]').forEach((place, index) => {
    Plotly.newPlot(place, figures[index].data, figures[index].layout, {responsive: true, displayModeBar: false});
  });
}

film();
charts();
