package bench

import (
	htmltemplate "html/template"
	"io"
	"slices"
	"time"
)

// HTML is the report as one page without scripts that loads nothing.
func (r *Result) HTML() Reporter {
	return func(w io.Writer) error {
		charts, err := r.charts()
		if err != nil {
			return err
		}
		s := r.summary()
		facts := append(s.facts,
			fact{"started", r.Start.UTC().Format(time.DateTime + " UTC")},
			fact{"machine", r.Machine.text()})
		return page.Execute(w, map[string]any{
			"Title":   s.title,
			"Facts":   facts,
			"Tables":  []table{s.latency, s.errors, s.cost},
			"Clean":   len(s.errors.Rows) == 0,
			"Notes":   s.notes,
			"Charts":  charts,
			"Command": shell(r.Command),
		})
	}
}

// Class is the style class of a column.
func (t table) Class(i int) string {
	if i == 0 || slices.Contains(t.left, i) {
		return "l"
	}
	return "r"
}

// page is the whole page. The policy in its head forbids it to load anything.
var page = htmltemplate.Must(htmltemplate.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>wspoll bench: {{.Title}}</title>
<style>
:root { color-scheme: light dark; --page: #f4f5f7; --card: #fff; --text: #1c2128; --soft: #59636e; --rule: #d8dde3; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14171b; --card: #1d2127; --text: #e4e8ec; --soft: #9aa4af; --rule: #363d46; --warn: #3d3216; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 66rem; background: var(--page); color: var(--text);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { margin: .25rem 0 1rem; font-size: 1.3rem; overflow-wrap: anywhere; }
h2 { margin: 0 0 .5rem; font-size: 1rem; }
section, figure { margin: 0 0 1rem; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 0 .3rem 1rem; text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: normal; }
tr + tr > * { border-top: 1px solid var(--rule); }
.l { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
.note { background: var(--warn); }
.note p { margin: .2rem 0; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; margin-bottom: 1rem; }
figure { margin: 0; }
svg { display: block; width: 100%; max-width: 100%; height: auto; }
svg text { fill: currentColor; font-family: "Liberation Sans", Arial, Helvetica, sans-serif; }
figcaption { color: var(--soft); font-size: .87rem; }
.key { margin-right: 1rem; white-space: nowrap; }
.key i { display: inline-block; width: 1.1em; height: 3px; margin-right: .35em; vertical-align: middle; }
@media (max-width: 32rem) {
  body { padding: .5rem; }
  section, figure { padding: .6rem; }
  table, dl { font-size: .87rem; }
  th, td { padding-left: .6rem; }
}
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .87rem; }
</style>
</head>
<body>
<h1>{{.Title}}</h1>
{{with .Notes}}<section class="note">
{{range .}}<p>{{.}}</p>
{{end}}</section>
{{end -}}
<section>
<dl>
{{range .Facts}}<dt>{{.Name}}</dt><dd>{{.Text}}</dd>
{{end}}</dl>
</section>
{{range $t := .Tables}}{{if .Rows}}<section class="scroll">
<table>
<tr>{{range $i, $h := .Head}}<th class="{{$t.Class $i}}">{{$h}}</th>{{end}}</tr>
{{range .Rows}}<tr>{{range $i, $c := .}}<td class="{{$t.Class $i}}">{{$c}}</td>{{end}}</tr>
{{end}}</table>
</section>
{{end}}{{end -}}
{{if .Clean}}<section>no errors</section>
{{end -}}
<div class="charts">
{{range .Charts}}<figure>
<h2>{{.Title}}</h2>
{{.SVG}}
<figcaption>{{range .Lines}}<span class="key"><i style="background:{{.Color}}"></i>{{.Name}}</span>{{end}}{{.Note}}</figcaption>
</figure>
{{end}}</div>
<section>
<h2>Command</h2>
<pre>{{.Command}}</pre>
</section>
</body>
</html>
`))
