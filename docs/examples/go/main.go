// Command receiver takes in the messages of Plausible Webhooks: each once, into a folder.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

const largestBody = 4 << 20

var (
	inbox  = cmp.Or(os.Getenv("INBOX"), "inbox")
	idForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,100}$`) // the id becomes a file's name
)

func main() {
	if err := os.MkdirAll(inbox, 0o700); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("listening on http://%s", listener.Addr())
	routes := http.NewServeMux()
	routes.HandleFunc("POST /webhooks", receive)
	server := &http.Server{Handler: routes, ReadTimeout: 10 * time.Second}
	log.Fatal(server.Serve(listener))
}

func receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestBody))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	if err := verify(body, r.Header); err != nil {
		http.Error(w, err.Error(), http.StatusUnauthorized)
		return
	}
	isNew, err := keep(r.Header.Get("webhook-id"), body)
	if err != nil {
		log.Print(err)
		http.Error(w, "the message cannot be kept", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
	if isNew && http.NewResponseController(w).Flush() == nil {
		work(body)
	}
}

// keep stores a message, and tells whether it is new. A name is linked once, whoever else tries at
// the same time, and the file behind it is complete.
func keep(id string, body []byte) (isNew bool, err error) {
	if !idForm.MatchString(id) {
		return false, errors.New("the webhook-id is malformed")
	}
	part, err := os.CreateTemp(inbox, "part-")
	if err != nil {
		return false, err
	}
	defer os.Remove(part.Name())
	_, err = part.Write(body)
	if err := errors.Join(err, part.Close()); err != nil {
		return false, err
	}
	err = os.Link(part.Name(), filepath.Join(inbox, id+".json"))
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// work is where yours begins. The sender has its answer already.
func work(body []byte) {
	var message struct {
		Type string `json:"type"`
		Data struct {
			ID       string            `json:"id"`
			Messages []json.RawMessage `json:"messages"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &message); err != nil {
		log.Print(err)
		return
	}
	if message.Type == "batch" {
		for _, one := range message.Data.Messages {
			work(one)
		}
		return
	}
	log.Printf("%s %s", message.Type, message.Data.ID)
}
