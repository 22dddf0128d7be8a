package format

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/itchyny/gojq"
)

// jq knows no bounds: ten characters make gigabytes in one step of its machine, where no deadline is
// looked at. So an expression is rewritten before it is compiled. It may call its own functions and
// those listed here; whatever makes values passes a meter (budget.go), and whatever could make a large
// one at once passes it before.
type guarding struct {
	functions []function // of the expression itself, that can be seen here
	variables int        // that were introduced
	parts     int        // of the expression, so far
	err       error      // the first
}

type function struct {
	name      string
	arguments int
	as        string // how it is called after the rewriting
}

func guard(q *gojq.Query) error {
	g := &guarding{}
	g.query(q)
	return g.err
}

// effect is what has to be metered of a function of jq.
type effect int

const (
	none    effect = iota + 1 // it makes nothing larger than what goes in, or what its arguments make
	makes                     // it makes a value, of at most some times the size of its input
	pairs                     // it compares every element of its input with every one of its argument
	matches                   // a regular expression
	matchesAll
)

var functions = func() map[string]effect {
	known := map[string]effect{}
	for e, names := range map[effect]string{
		none: `empty/0 not/0 type/0 length/0 utf8bytelength/0 error/0 error/1 select/1 first/0 first/1 last/0 last/1 limit/2 skip/2
			until/2 while/2 repeat/1 range/1 range/2 range/3 isempty/1 any/2 all/2 IN/1 IN/2 recurse/1 recurse/2 path/1
			has/1 in/1 startswith/1 endswith/1 values/0 nulls/0 strings/0 numbers/0 booleans/0 arrays/0 objects/0 iterables/0 scalars/0
			floor/0 round/0 ceil/0 trunc/0 sqrt/0 fabs/0 abs/0 log/0 log2/0 log10/0 exp/0 exp2/0 exp10/0 pow/2 fmin/2 fmax/2 fmod/2
			infinite/0 nan/0 isinfinite/0 isnan/0 isnormal/0 isfinite/0 toboolean/0`,
		makes: `add/0 add/1 map/1 map_values/1 any/0 any/1 all/0 all/1 keys/0 to_entries/0 from_entries/0 with_entries/1 walk/1
			recurse/0 paths/0 paths/1 del/1 pick/1 reverse/0 flatten/0 flatten/1 min/0 max/0 min_by/1 max_by/1 sort/0 sort_by/1
			group_by/1 unique/0 unique_by/1 tostring/0 tojson/0 explode/0 implode/0 split/1 join/1 ltrimstr/1 rtrimstr/1 trimstr/1
			ltrim/0 rtrim/0 trim/0 ascii_downcase/0 ascii_upcase/0 tonumber/0 todate/0 fromdate/0 todateiso8601/0 fromdateiso8601/0
			gmtime/0 mktime/0 strftime/1 strptime/1`,
		pairs:      `contains/1 inside/1 indices/1 index/1 rindex/1`,
		matches:    `test/1 test/2 match/1 match/2 capture/1 capture/2 sub/2 sub/3`,
		matchesAll: `scan/1 scan/2 split/2 splits/1 splits/2 gsub/2 gsub/3`,
	} {
		for name := range strings.FieldsSeq(names) {
			known[name] = e
		}
	}
	return known
}()

var formats = []string{"@text", "@json", "@html", "@uri", "@urid", "@csv", "@tsv", "@sh", "@base64", "@base64d"}

func (g *guarding) refuse(format string, arguments ...any) {
	if g.err == nil {
		g.err = fmt.Errorf(format, arguments...)
	}
}

func (g *guarding) query(q *gojq.Query) {
	if q == nil || g.err != nil {
		return
	}
	g.parts++
	if q.Meta != nil || len(q.Imports) > 0 {
		g.refuse("cannot use modules")
		return
	}
	seen := len(g.functions)
	for _, definition := range q.FuncDefs {
		g.define(definition)
	}
	if q.Term != nil {
		g.term(q.Term)
	} else {
		g.operation(q)
	}
	g.functions = g.functions[:seen]
}

func (g *guarding) define(definition *gojq.FuncDef) {
	renamed := "user_" + definition.Name
	g.functions = append(g.functions, function{definition.Name, len(definition.Args), renamed})
	definition.Name = renamed
	outside := len(g.functions)
	for i, argument := range definition.Args {
		f := function{argument, 0, "user_" + argument}
		if name, isVariable := strings.CutPrefix(argument, "$"); isVariable {
			g.variable(argument)
			f = function{name, 0, argument}
		} else {
			definition.Args[i] = f.as
		}
		g.functions = append(g.functions, f)
	}
	before := g.parts
	g.query(definition.Body)
	definition.Body = entered(definition.Body, g.parts-before)
	g.functions = g.functions[:outside]
}

// inner is an argument of a function: it runs with variables of its own.
func (g *guarding) inner(q *gojq.Query) *gojq.Query {
	before := g.parts
	g.query(q)
	if parts := g.parts - before; parts > 16 { // fewer need no more than a step does
		return entered(q, parts)
	}
	return q
}

func (g *guarding) variable(name string) {
	if strings.HasPrefix(name, "$__") || name == "$ENV" {
		g.refuse("uses %s, which templates do not have", name)
	}
}

func (g *guarding) patterns(patterns []*gojq.Pattern) {
	for _, p := range patterns {
		g.variable(p.Name)
		g.patterns(p.Array)
		for _, property := range p.Object {
			g.variable(property.Key)
			g.text(property.KeyString)
			g.query(property.KeyQuery)
			if property.Val != nil {
				g.patterns([]*gojq.Pattern{property.Val})
			}
		}
	}
}

func (g *guarding) operation(q *gojq.Query) {
	switch op := q.Op; op {
	case gojq.OpPipe, gojq.OpComma, gojq.OpAnd, gojq.OpOr, gojq.OpAlt, gojq.OpMod,
		gojq.OpEq, gojq.OpNe, gojq.OpGt, gojq.OpLt, gojq.OpGe, gojq.OpLe:
		g.query(q.Left)
		g.patterns(q.Patterns)
		g.query(q.Right)
	case gojq.OpAdd, gojq.OpDiv, gojq.OpSub, gojq.OpMul:
		g.query(q.Left)
		g.query(q.Right)
		*q = *g.arithmetic(op, q.Left, q.Right)
	case gojq.OpAssign, gojq.OpModify, gojq.OpUpdateAlt:
		q.Left, q.Right = g.inner(q.Left), g.inner(q.Right)
		*q = *charged(parenthesis(copied(q)))
	case gojq.OpUpdateAdd, gojq.OpUpdateSub, gojq.OpUpdateMul, gojq.OpUpdateDiv, gojq.OpUpdateMod:
		// l += r is r as $x | l |= . + $x
		g.query(q.Right)
		left, name := g.inner(q.Left), g.fresh()
		change := binary(updating[op], identity(), call(name))
		if op != gojq.OpUpdateMod {
			change = g.arithmetic(updating[op], identity(), call(name))
		}
		*q = *charged(parenthesis(bind(name, q.Right, binary(gojq.OpModify, left, parenthesis(change)))))
	default:
		g.refuse("has an operator that templates do not have")
	}
}

var updating = map[gojq.Operator]gojq.Operator{
	gojq.OpUpdateAdd: gojq.OpAdd, gojq.OpUpdateSub: gojq.OpSub, gojq.OpUpdateMul: gojq.OpMul,
	gojq.OpUpdateDiv: gojq.OpDiv, gojq.OpUpdateMod: gojq.OpMod,
}

func (g *guarding) arithmetic(op gojq.Operator, left, right *gojq.Query) *gojq.Query {
	before := map[gojq.Operator]string{gojq.OpSub: "__pairs", gojq.OpMul: "__repeat"}[op]
	if before == "" {
		return charged(parenthesis(binary(op, left, right)))
	}
	r, l := g.fresh(), g.fresh()
	checked := pipe(metered(before, call(l), call(r)), binary(op, call(l), call(r)))
	return charged(parenthesis(bind(r, right, bind(l, left, checked))))
}

// fresh is a variable that no other part of the expression has.
func (g *guarding) fresh() string {
	g.variables++
	return "$__" + strconv.Itoa(g.variables)
}

func (g *guarding) term(t *gojq.Term) {
	if g.err != nil {
		return
	}
	g.parts++
	suffixes := t.SuffixList
	t.SuffixList = nil
	g.base(t)
	for i := 0; i < len(suffixes); i++ {
		s := suffixes[i]
		switch {
		case s.Index != nil:
			g.index(s.Index)
		case s.Iter:
			*t = *parenthesis(pipe(&gojq.Query{Term: &gojq.Term{
				Type: gojq.TermTypeQuery, Query: &gojq.Query{Term: copiedTerm(t)},
			}}, metered("__spread"))).Term
		}
		t.SuffixList = append(t.SuffixList, s)
	}
}

// base is a term without what follows it.
func (g *guarding) base(t *gojq.Term) {
	switch t.Type {
	case gojq.TermTypeIdentity, gojq.TermTypeNull, gojq.TermTypeTrue, gojq.TermTypeFalse, gojq.TermTypeBreak:
	case gojq.TermTypeNumber:
		if len(t.Number) > 100 {
			g.refuse("has a number of more than 100 digits")
		}
	case gojq.TermTypeRecurse:
		*t = *parenthesis(pipe(metered("__charge"), &gojq.Query{Term: copiedTerm(t)})).Term
	case gojq.TermTypeIndex:
		g.index(t.Index)
	case gojq.TermTypeFunc:
		g.call(t)
	case gojq.TermTypeObject:
		for _, property := range t.Object.KeyVals {
			g.variable(property.Key)
			g.text(property.KeyString)
			g.query(property.KeyQuery)
			g.query(property.Val)
		}
		chargeTerm(t)
	case gojq.TermTypeArray:
		if t.Array.Query != nil {
			g.query(t.Array.Query)
			chargeTerm(t)
		}
	case gojq.TermTypeUnary:
		g.term(t.Unary.Term)
	case gojq.TermTypeFormat:
		if !slices.Contains(formats, t.Format) {
			g.refuse("uses %s, which templates do not have", t.Format)
		}
		g.text(t.Str)
		chargeTerm(t)
	case gojq.TermTypeString:
		if t.Str.Queries != nil {
			g.text(t.Str)
			chargeTerm(t)
		}
	case gojq.TermTypeIf:
		g.query(t.If.Cond)
		g.query(t.If.Then)
		for _, elif := range t.If.Elif {
			g.query(elif.Cond)
			g.query(elif.Then)
		}
		g.query(t.If.Else)
	case gojq.TermTypeTry:
		g.query(t.Try.Body)
		g.query(t.Try.Catch)
	case gojq.TermTypeReduce:
		g.query(t.Reduce.Query)
		g.patterns(t.Reduce.Patterns)
		g.query(t.Reduce.Start)
		g.query(t.Reduce.Update)
	case gojq.TermTypeForeach:
		g.query(t.Foreach.Query)
		g.patterns(t.Foreach.Patterns)
		g.query(t.Foreach.Start)
		g.query(t.Foreach.Update)
		g.query(t.Foreach.Extract)
	case gojq.TermTypeLabel:
		g.variable(t.Label.Ident)
		g.query(t.Label.Body)
	case gojq.TermTypeQuery:
		g.query(t.Query)
	default:
		g.refuse("has a construct that templates do not have")
	}
}

// text is a text with expressions in it.
func (g *guarding) text(s *gojq.String) {
	if s == nil {
		return
	}
	for _, q := range s.Queries {
		if q.Term == nil || q.Term.Str == nil { // a part that is not constant
			g.query(q)
		}
	}
}

func (g *guarding) index(x *gojq.Index) {
	g.text(x.Str)
	g.query(x.End)
	if x.Start == nil {
		return
	}
	g.query(x.Start)
	if !x.IsSlice && (x.Start.Term == nil || x.Start.Term.Type != gojq.TermTypeString) {
		x.Start = pipe(parenthesis(x.Start), metered("__index"))
	}
}

func (g *guarding) call(t *gojq.Term) {
	f := t.Func
	if strings.HasPrefix(f.Name, "$") {
		g.variable(f.Name)
		return
	}
	for _, known := range slices.Backward(g.functions) {
		if known.name == f.Name && known.arguments == len(f.Args) {
			f.Name = known.as
			for i, argument := range f.Args {
				f.Args[i] = g.inner(argument)
			}
			return
		}
	}
	signature := f.Name + "/" + strconv.Itoa(len(f.Args))
	effect := functions[signature]
	if effect == 0 {
		g.refuse("uses %s, which templates do not have", signature)
		return
	}
	instructions := 0
	if effect == matches || effect == matchesAll {
		var flags string
		if instructions, flags = g.expression(f); strings.Contains(flags, "g") {
			effect = matchesAll
		}
	}
	for i, argument := range f.Args {
		f.Args[i] = g.inner(argument)
	}
	self := &gojq.Query{Term: copiedTerm(t)}
	switch {
	case effect == none:
		return
	case signature == "join/1":
		self = metered("__join", f.Args[0])
	case signature == "tonumber/0":
		self = pipe(metered("__digits"), self)
	case effect == pairs:
		name := g.fresh()
		argument := f.Args[0]
		self = bind(name, argument, pipe(metered("__pairs", identity(), call(name)), call(f.Name, call(name))))
	case effect == matches:
		self = pipe(metered("__match", number(instructions)), self)
	case effect == matchesAll:
		self = pipe(metered("__matchall", number(instructions)), self)
	case effect == makes:
		self = pipe(metered("__charge"), self)
	}
	*t = *charged(parenthesis(self)).Term
}

const (
	maxMatched      = 16 << 10 // bytes of a text
	maxInstructions = 1000     // of a regular expression
)

// expression reads a function's regular expression: how many instructions it has, and its flags. It must be written out: jq keeps every
// one that it ever compiled.
func (g *guarding) expression(f *gojq.Func) (instructions int, flags string) {
	text, isConstant := constant(f.Args[0])
	last := len(f.Args) - 1
	if f.Name != "sub" && f.Name != "gsub" && last == 1 || last == 2 {
		var flagged bool
		flags, flagged = constant(f.Args[last])
		isConstant = isConstant && (flagged || f.Args[last].Term != nil && f.Args[last].Term.Type == gojq.TermTypeNull)
	}
	if !isConstant {
		g.refuse("must write the regular expression of %s, and its flags, as constant texts", f.Name)
		return 0, ""
	}
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		g.refuse("has a faulty regular expression: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return 0, ""
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxInstructions {
		g.refuse("has a regular expression that is too complex")
		return 0, ""
	}
	return len(program.Inst), flags
}

func constant(q *gojq.Query) (string, bool) {
	if t := q.Term; t != nil && t.Type == gojq.TermTypeString && t.Str.Queries == nil && len(t.SuffixList) == 0 && len(q.FuncDefs) == 0 {
		return t.Str.Str, true
	}
	return "", false
}

// ---------------------------------------------------------------- parts of expressions

func identity() *gojq.Query { return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIdentity}} }

func call(name string, arguments ...*gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: name, Args: arguments}}}
}

func metered(meter string, arguments ...*gojq.Query) *gojq.Query {
	return call(meter, append([]*gojq.Query{call(budgetVariable)}, arguments...)...)
}

func number(n int) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeNumber, Number: strconv.Itoa(n)}}
}

func binary(op gojq.Operator, left, right *gojq.Query) *gojq.Query {
	return &gojq.Query{Op: op, Left: left, Right: right}
}

func pipe(left, right *gojq.Query) *gojq.Query { return binary(gojq.OpPipe, left, right) }

func bind(variable string, value, body *gojq.Query) *gojq.Query {
	return &gojq.Query{Op: gojq.OpPipe, Left: value, Patterns: []*gojq.Pattern{{Name: variable}}, Right: body}
}

func parenthesis(q *gojq.Query) *gojq.Query {
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: q}}
}

// charged is what makes a value, with the meter behind it.
func charged(q *gojq.Query) *gojq.Query { return parenthesis(pipe(q, metered("__charge"))) }

func chargeTerm(t *gojq.Term) { *t = *charged(&gojq.Query{Term: copiedTerm(t)}).Term }

func entered(q *gojq.Query, parts int) *gojq.Query {
	return pipe(metered("__enter", number(parts)), parenthesis(q))
}

func copied(q *gojq.Query) *gojq.Query   { c := *q; return &c }
func copiedTerm(t *gojq.Term) *gojq.Term { c := *t; return &c }
