/** Line icons on a grid of 24, drawn for this page. */

const PATHS = {
  undo: 'M4 9h10a5.500 5.500 0 0 1 0 11H9M8 5 4 9l4 4',
  redo: 'M20 9H10a5.500 5.500 0 0 0 0 11h5M16 5l4 4-4 4',
  bold: 'M7 5h6a3.500 3.500 0 0 1 0 7H7zM7 12h7a3.500 3.500 0 0 1 0 7H7z',
  italic: 'M11 5h7M6 19h7M14.500 5l-5 14',
  underline: 'M7 4v7a5 5 0 0 0 10 0V4M6 20h12',
  strike:
    'M4 12h16M16.500 8c0-2-1.800-3.500-4.500-3.500S7.500 5.800 7.500 8c0 1.700 1 2.800 2.800 4M7.500 16c0 2 1.800 3.500 4.500 3.500s4.500-1.400 4.500-3.500',
  code: 'M8 7l-5 5 5 5M16 7l5 5-5 5',
  textColor: 'M6.500 16 12 4l5.500 12M8.600 12h6.800',
  highlight: 'M9 15l-3-3 9.500-8.500 4 4L11 17zM6 12l-2.500 5.500L9 15',
  bullets: 'M9 6h11M9 12h11M9 18h11M4.500 6h.01M4.500 12h.01M4.500 18h.01',
  numbers:
    'M10 6h10M10 12h10M10 18h10M4 4.500l1.500-.7V9M3.800 14.300c.3-.9 2.900-1.200 2.900.5 0 1.200-2.900 2.200-2.900 3.900h3',
  checklist: 'M3.500 6.500 5 8l3-3.500M3.500 15.500 5 17l3-3.500M12 6.500h8.500M12 15.500h8.500',
  quote: 'M5 5v14M10 8h10M10 12h10M10 16h6',
  codeblock: 'M4 4.500h16v15H4zM10 9.500 7.500 12l2.500 2.500M14 9.500l2.500 2.500-2.500 2.500',
  link: 'M10 14a4 4 0 0 0 5.700 0l3.100-3.100a4 4 0 0 0-5.700-5.700L12 6.300M14 10a4 4 0 0 0-5.700 0l-3.100 3.100a4 4 0 0 0 5.700 5.700L12 17.700',
  image: 'M4 5h16v14H4zM4 16l4.500-4.500L13 16l2.500-2.500L20 18M15.500 9.500h.01',
  alignLeft: 'M4 6h16M4 10h10M4 14h16M4 18h10',
  alignCenter: 'M4 6h16M7 10h10M4 14h16M7 18h10',
  alignRight: 'M4 6h16M10 10h10M4 14h16M10 18h10',
  alignJustify: 'M4 6h16M4 10h16M4 14h16M4 18h16',
  clear: 'M6 5h12M12 5l-2 9M8.500 19h4M15 15l5 5M20 15l-5 5',
  keyboard: 'M3 6.500h18v11H3zM6.500 10h.01M10 10h.01M14 10h.01M17.500 10h.01M6.500 14h.01M17.500 14h.01M9.500 14h5',
  back: 'M15 5l-7 7 7 7',
  plus: 'M12 5v14M5 12h14',
  search: 'M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM15.500 15.500 20 20',
  pencil: 'M4 20l1-4.500L16 4.500l3.500 3.500L8.500 19zM13.500 7l3.500 3.500',
  page: 'M6 3.500h8l4 4v13H6zM14 3.500v4h4M9 12h6M9 16h6',
  cloud: 'M7 18.500a4 4 0 0 1-.6-7.950 6 6 0 0 1 11.500 1.500A3.300 3.300 0 0 1 17 18.500zM9.500 14l2 2 3.500-3.500',
  sync: 'M19.500 9A8 8 0 0 0 5 8M4.500 15A8 8 0 0 0 19 16M5 4v4h4M19 20v-4h-4',
  offline: 'M4 4l16 16M9 7.300a6 6 0 0 1 8.900 4.750A3.300 3.300 0 0 1 19 18M15.500 18.500H7a4 4 0 0 1-.6-7.950',
  share: 'M12 15V4M8 8l4-4 4 4M5 12v7.500h14V12',
  close: 'M6 6l12 12M18 6 6 18',
  external: 'M14 4h6v6M20 4l-9 9M18 14v6H4V6h6',
} as const;

export type IconName = keyof typeof PATHS;

const SVG = 'http://www.w3.org/2000/svg';

export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name]);
  svg.append(path);
  return svg;
}
